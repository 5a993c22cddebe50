#include "es_mve_conv.h"

void es_mve_pointwise_s16(const es_mve_conv_args *args, const int16_t *in, int16_t *out)
{
    es_mve_walk_pointwise(args, (const int8_t *)in, (int8_t *)out, es_mve_rows_s16);
}
