#include "es_mve_conv.h"

void es_mve_conv_s16(const es_mve_conv_args *args, const int16_t *in, int16_t *out,
                     int16_t *scratch)
{
    es_mve_walk(args, (const int8_t *)in, (int8_t *)out, (int8_t *)scratch, es_mve_rows_s16);
}
