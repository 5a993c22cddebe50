#include "es_common.h"
#include "es_table.h"

void es_lookup_s8_s16(const es_lookup_s8_s16_args *args, const int8_t *in, int16_t *out)
{
    const int16_t *const table = args->table;
    for (int32_t i = 0; i < args->count; ++i) {
        out[i] = table[(uint8_t)in[i]];
    }
}
