#include "es_common.h"
#include "es_elementwise.h"

#define ES_ARGS es_add_args
#define ES_CODE int16_t

static inline int32_t addend(es_addend by, int32_t code)
{
    const int32_t raised = (code - by.zero) * by.raise;
    return es_divide_by_pot_positive(es_high_mul_normal(raised, by.multiplier), by.right);
}

static ES_NOINLINE void row(const ES_ARGS *args, const ES_CODE *a, const ES_CODE *b, ES_CODE *out)
{
    const ES_ARGS by = *args;
    for (int32_t i = 0; i < by.shape.count; ++i) {
        const int32_t sum = addend(by.a, *a) + by.sign * addend(by.b, *b);
        const int32_t scaled = es_requantize(sum, by.multiplier, by.shift);
        out[i] = (ES_CODE)(es_clamp(scaled, by.low, by.high) + by.zero);
        a += by.shape.step_a;
        b += by.shape.step_b;
    }
}

#include "es_broadcast.h"

void es_add_s16(const es_add_args *args, const int16_t *a, const int16_t *b, int16_t *out)
{
    es_for_rows(args, a, b, out);
}
