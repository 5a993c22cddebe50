#include "es_common.h"
#include "es_elementwise.h"

#define ES_CODE int16_t

#include "es_mul_row.h"

static void row(const ES_ARGS *args, const int16_t *a, const int16_t *b, int16_t *out)
{
    es_finish_row(args, 0, a, b, out);
}

#include "es_broadcast.h"

void es_mul_s16(const es_mul_args *args, const int16_t *a, const int16_t *b, int16_t *out)
{
    es_for_rows(args, a, b, out);
}
