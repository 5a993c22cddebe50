#include "es_common.h"
#include "es_elementwise.h"

void es_clamp_s8(const es_clamp_args *args, const int8_t *in, int8_t *out)
{
    const es_clamp_args by = *args;
    const int8_t *const end = in + by.count;
#if ES_DSP
    const uint32_t low = (uint32_t)(uint8_t)by.low * 0x01010101u;
    const uint32_t high = (uint32_t)(uint8_t)by.high * 0x01010101u;
    const int8_t *const last_word = in + (by.count & ~3);
    while (in != last_word) {
        uint32_t x = es_load_word(in), unused;
        __asm__("ssub8 %1, %0, %2\n\tsel %0, %0, %2\n\t"
                "ssub8 %1, %3, %0\n\tsel %0, %0, %3"
                : "+r"(x), "=&r"(unused)
                : "r"(low), "r"(high)
                : "cc");
        es_store_word(out, x);
        in += 4;
        out += 4;
    }
#endif
    while (in != end) {
        *out++ = (int8_t)es_clamp(*in++, by.low, by.high);
    }
}
