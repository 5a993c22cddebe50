#include "es_common.h"
#include "es_elementwise.h"

void es_clamp_s16(const es_clamp_args *args, const int16_t *in, int16_t *out)
{
    const es_clamp_args by = *args;
    for (int32_t i = 0; i < by.count; ++i) {
        out[i] = (int16_t)es_clamp(in[i], by.low, by.high);
    }
}
