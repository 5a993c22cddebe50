#include "es_common.h"
#include "es_expand.h"

#define NIBBLES 8 /* of a word */

void es_expand_s4(const es_expand_args *args, uint32_t *to)
{
    const uint32_t *present = args->stored;
    const uint32_t *const end = present + args->blocks;
    const uint32_t *from = end;
    uint32_t codes = 0;
    int32_t held = 0;
    for (; present < end; ++present) {
        uint32_t bits = *present;
        for (int32_t i = ES_EXPAND_UNITS / NIBBLES; i > 0; --i) {
            uint32_t word = args->blank;
            int32_t shift = 0;
            for (uint32_t left = bits & 0xFF000000u; left != 0; --held) {
                if (held == 0) {
                    codes = *from++;
                    held = NIBBLES;
                }
                const int32_t gap = es_leading_zeros(left);
                shift += 4 * gap;
                word ^= (codes & 15u) << shift;
                codes >>= 4;
                shift += 4;
                left = left << gap << 1;
            }
            *to++ = word;
            bits <<= 8;
        }
    }
}
