#include "es_common.h"
#include "es_elementwise.h"

#define ES_ARGS es_mul_args
#define ES_CODE int16_t

static void row(const ES_ARGS *args, const ES_CODE *a, const ES_CODE *b, ES_CODE *out)
{
    const ES_ARGS by = *args;
    for (int32_t i = 0; i < by.shape.count; ++i) {
        const int32_t product = (*a - by.zero_a) * (*b - by.zero_b);
        const int32_t scaled = es_requantize(product, by.multiplier, by.shift);
        out[i] = (ES_CODE)(es_clamp(scaled, by.low, by.high) + by.zero);
        a += by.shape.step_a;
        b += by.shape.step_b;
    }
}

#include "es_broadcast.h"

void es_mul_s16(const es_mul_args *args, const int16_t *a, const int16_t *b, int16_t *out)
{
    es_for_rows(args, a, b, out);
}
