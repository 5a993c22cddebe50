#include "es_common.h"
#include "es_elementwise.h"

void es_rescale_s16_s8(const es_rescale_args *args, const int16_t *in, int8_t *out)
{
    const es_rescale_args by = *args;
    for (int32_t i = 0; i < by.count; ++i) {
        const int32_t scaled = es_requantize(in[i] - by.in_zero, by.multiplier, by.shift);
        out[i] = (int8_t)(es_clamp(scaled, by.low, by.high) + by.zero);
    }
}
