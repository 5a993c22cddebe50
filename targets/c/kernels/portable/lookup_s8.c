#include "es_common.h"
#include "es_table.h"

void es_lookup_s8(const es_lookup_s8_args *args, const int8_t *in, int8_t *out)
{
    const int8_t *const table = args->table;
    const int8_t *const end = in + args->count;
#if ES_DSP
    const int8_t *const last_word = in + (args->count & ~3);
    while (in != last_word) {
        const uint32_t x = es_load_word(in);
        const int8_t first = table[x & 0xFF], second = table[x >> 8 & 0xFF];
        const int8_t third = table[x >> 16 & 0xFF], fourth = table[x >> 24];
        in += 4;
        out[0] = first;
        out[1] = second;
        out[2] = third;
        out[3] = fourth;
        out += 4;
    }
#endif
    while (in != end) {
        *out++ = table[(uint8_t)*in++];
    }
}
