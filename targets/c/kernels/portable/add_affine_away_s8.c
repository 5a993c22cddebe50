#include "es_affine.h"

void es_add_affine_away_s8(const es_add_affine_s8_args *args, const int8_t *a, const int8_t *b,
                           int8_t *out)
{
    es_affine_row(args->by, a, b, out, args->count, 1);
}
