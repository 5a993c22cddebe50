#include "es_mve_conv.h"

void es_mve_conv_s8(const es_mve_conv_args *args, const int8_t *in, int8_t *out, int8_t *scratch)
{
    es_mve_walk(args, in, out, scratch, es_mve_rows_s8);
}
