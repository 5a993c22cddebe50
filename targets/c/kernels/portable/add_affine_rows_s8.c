#include "es_affine.h"

#define ES_ARGS es_add_affine_rows_s8_args
#define ES_CODE int8_t

static ES_NOINLINE void row(const ES_ARGS *args, const int8_t *a, const int8_t *b, int8_t *out)
{
    es_affine_row(args->by, args->tail, 1, args->shape.count, a, b, out);
}

#include "es_broadcast.h"

void es_add_affine_rows_s8(const es_add_affine_rows_s8_args *args, const int8_t *a,
                           const int8_t *b, int8_t *out)
{
    es_for_rows(args, a, b, out);
}
