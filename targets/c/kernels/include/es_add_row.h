/* Sums of rows, for es_broadcast.h; include it after defining ES_CODE, the elements' type. */
#define ES_ARGS es_add_args

static inline int32_t es_addend_of(es_addend by, int32_t code)
{
    const int32_t raised = (code - by.zero) * by.raise;
    return es_divide_by_pot_positive(es_high_mul_normal(raised, by.multiplier), by.right);
}

static inline int32_t combined(const ES_ARGS *by, int32_t a, int32_t b)
{
    return es_addend_of(by->a, a) + by->sign * es_addend_of(by->b, b);
}

#include "es_requantized_row.h"

static ES_NOINLINE void row(const ES_ARGS *args, const ES_CODE *a, const ES_CODE *b, ES_CODE *out)
{
    es_finish_row(args, 0, a, b, out);
}
