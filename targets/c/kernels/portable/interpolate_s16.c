#include "es_table.h"

void es_interpolate_s16(const es_interpolate_s16_args *args, const int16_t *in, int16_t *out)
{
    for (int32_t i = 0; i < args->count; ++i) {
        out[i] = (int16_t)es_interpolated(args->table, in[i]);
    }
}
