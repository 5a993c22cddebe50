#include "es_common.h"
#include "es_mve_block.h"

/* Sums of the products of 16-bit codes with two rows of 8-bit weights. */
static inline void one_by_two(const int16_t *codes, const int8_t *first, const int8_t *second,
                              int32_t count, int64_t *sums)
{
    __asm volatile("    mov         r8, #0\n"
                   "    mov         r9, #0\n"
                   "    mov         r10, #0\n"
                   "    mov         r11, #0\n"
                   "    wlstp.16    lr, %[count], 2f\n"
                   "1:  vldrh.u16   q0, [%[codes]], #16\n"
                   "    vldrb.s16   q1, [%[first]], #8\n"
                   "    vmlaldava.s16 r8, r9, q0, q1\n"
                   "    vldrb.s16   q2, [%[second]], #8\n"
                   "    vmlaldava.s16 r10, r11, q0, q2\n"
                   "    letp        lr, 1b\n"
                   "2:  strd        r8, r9, [%[sums]]\n"
                   "    strd        r10, r11, [%[sums], #8]\n"
                   : [codes] "+l"(codes), [first] "+l"(first), [second] "+l"(second)
                   : [count] "r"(count), [sums] "r"(sums)
                   : "r8", "r9", "r10", "r11", "lr", "q0", "q1", "q2", "cc", "memory");
}

static inline int16_t finish(const es_mve_tail *tail, const int32_t *record, int64_t products)
{
    int64_t bias;
    memcpy(&bias, record, sizeof bias);
    const int64_t sum = products + bias;
    const int32_t scaled = tail->ties ? es_requantize((int32_t)(uint64_t)sum, record[2], record[3])
                                      : es_requantize_wide(sum, record[2], record[3]);
    return (int16_t)es_clamp(scaled, tail->low, tail->high);
}

static void position(const es_mve_conv_args *args, const int16_t *codes, int16_t *out)
{
    const int32_t depth = args->depth >> 1;
    const int8_t *row = args->weights;
    const int32_t *record = args->tail.records;
    for (int32_t left = args->window.out_channels >> 1; left > 0; left -= 2) {
        int64_t sums[2];
        one_by_two(codes, row, left > 1 ? row + depth : row, depth, sums);
        out[0] = finish(&args->tail, record, sums[0]);
        if (left > 1) {
            out[1] = finish(&args->tail, record + 4, sums[1]);
        }
        row += 2 * depth;
        record += 8;
        out += 2;
    }
}

void es_mve_rows_s16(const es_mve_conv_args *args, es_mve_block *block)
{
    int16_t *const out = (int16_t *)(void *)block->out;
    position(args, (const int16_t *)(const void *)block->first, out);
    if (block->second) {
        position(args, (const int16_t *)(const void *)block->second,
                 out + (args->window.out_channels >> 1));
    }
}
