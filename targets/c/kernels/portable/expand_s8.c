#include "es_common.h"
#include "es_expand.h"

#define WORDS (ES_EXPAND_UNITS / 4) /* 8 */

/* Differences of the halves of two words, modulo 2^16 each. */
static inline uint32_t less_halves(uint32_t a, uint32_t b)
{
#if ES_DSP
    uint32_t result;
    __asm__("usub16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b) : "cc");
    return result;
#else
    return ((a - (b & 0xFFFFu)) & 0xFFFFu) | ((a & 0xFFFF0000u) - (b & 0xFFFF0000u));
#endif
}

void es_expand_s8(const es_expand_args *args, uint32_t *to)
{
    const uint32_t *present = args->stored;
    const uint32_t *const end = present + args->blocks;
    const uint8_t *from = (const uint8_t *)end;
    const uint32_t blank = args->blank;
    for (; present < end; to += WORDS) {
        uint32_t left = *present++;
        to[0] = to[1] = to[2] = to[3] = to[4] = to[5] = to[6] = to[7] = 0;
        if (left == 0) {
            continue;
        }
        uint8_t *at = (uint8_t *)to;
        do {
            const int32_t gap = es_leading_zeros(left);
            at += gap;
            *at++ = *from++;
            left = left << gap << 1;
        } while (left != 0);
        if (blank != 0) {
            for (int32_t i = 0; i < WORDS; i += 4) {
                to[i] = less_halves(to[i] ^ blank, blank);
                to[i + 1] = less_halves(to[i + 1] ^ blank, blank);
                to[i + 2] = less_halves(to[i + 2] ^ blank, blank);
                to[i + 3] = less_halves(to[i + 3] ^ blank, blank);
            }
        }
    }
}
