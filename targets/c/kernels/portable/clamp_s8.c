#include "es_common.h"
#include "es_elementwise.h"

void es_clamp_s8(const es_clamp_args *args, const int8_t *in, int8_t *out)
{
    const es_clamp_args by = *args;
    const int8_t *const end = in + by.count;
#if ES_DSP
    const es_lanes limits = es_lanes_of(by.low, by.high);
    const int8_t *const last_word = in + (by.count & ~3);
    while (in != last_word) {
        es_store_word(out, es_clamp_lanes(es_load_word(in), limits));
        in += 4;
        out += 4;
    }
#endif
    while (in != end) {
        *out++ = (int8_t)es_clamp(*in++, by.low, by.high);
    }
}
