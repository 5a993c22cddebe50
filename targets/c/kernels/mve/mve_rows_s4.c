#include "es_mve_block.h"

/* A byte holds two codes of a row, 16 apart: the high one is its top four bits, the low one its
 * bottom four shifted to the top. Either is 16 times the code as an 8-bit number, and sums are
 * divided by 16 before the bias is added.
 *
 * 32 codes of one channel at both positions; q0 q1 and q2 q3 hold the positions' codes. */
#define CHANNEL(load, first, second)      \
    load                                  \
    "    vshl.i8    q5, q4, #4\n"         \
    "    vand       q4, q4, q6\n"         \
    "    vmladava.s8 " first ", q0, q5\n" \
    "    vmladava.s8 " second ", q2, q5\n" \
    "    vmladava.s8 " first ", q1, q4\n" \
    "    vmladava.s8 " second ", q3, q4\n"
#define CHUNK(offset) "    vldrb.8    q4, [r5, #" offset "]\n"
#define NEXT_ROW                     \
    "    vldrb.8    q4, [r5]\n"      \
    "    add        r5, r9\n"

ES_MVE_NAKED static void four_by_two(es_mve_block *block __attribute__((unused)))
{
    __asm volatile(ES_MVE_BLOCK_BEGIN ES_MVE_BLOCK_GROUP
                   "    vmov.i8    q6, #0xF0\n"
                   "    mov        r0, #0\n"
                   "    mov        r2, #0\n"
                   "    mov        r4, #0\n"
                   "    mov        r6, #0\n"
                   "    mov        r8, #0\n"
                   "    mov        r10, #0\n"
                   "    mov        r12, #0\n"
                   "    mov        lr, #0\n"
                   "    subs       r9, #32\n"
                   "    blt        2f\n"
                   "1:  vldrb.8    q0, [r1], #32\n"
                   "    vldrb.8    q1, [r1, #-16]\n"
                   "    vldrb.8    q2, [r3], #32\n"
                   "    vldrb.8    q3, [r3, #-16]\n"
                   CHANNEL("    vldrb.8    q4, [r5], #64\n", "r0", "r8")
                   CHANNEL(CHUNK("-48"), "r2", "r10")
                   CHANNEL(CHUNK("-32"), "r4", "r12")
                   CHANNEL(CHUNK("-16"), "r6", "lr")
                   "    subs       r9, #32\n"
                   "    bge        1b\n"
                   "2:  ldr        r9, [r11, #48]\n"
                   "    cmp        r9, #0\n"
                   "    beq        3f\n"
                   "    vctp.8     r9\n"
                   "    vpstt\n"
                   "    vldrbt.8   q0, [r1]\n"
                   "    vldrbt.8   q2, [r3]\n"
                   "    add        r1, r9\n"
                   "    add        r3, r9\n"
                   "    ldr        r9, [r11, #52]\n"
                   "    vctp.8     r9\n"
                   "    vpstt\n"
                   "    vldrbt.8   q1, [r1]\n"
                   "    vldrbt.8   q3, [r3]\n"
                   "    ldr        r9, [r11, #48]\n"
                   CHANNEL(NEXT_ROW, "r0", "r8")
                   CHANNEL(NEXT_ROW, "r2", "r10")
                   CHANNEL(NEXT_ROW, "r4", "r12")
                   CHANNEL(NEXT_ROW, "r6", "lr")
                   "3:\n" ES_MVE_BLOCK_SUMS
                   "    vldrw.32   q2, [r7]\n"
                   "    vshr.s32   q0, q0, #4\n"
                   "    vshr.s32   q1, q1, #4\n"
                   "    vadd.i32   q0, q0, q2\n"
                   "    vadd.i32   q1, q1, q2\n"
                   ES_MVE_BLOCK_LIMITS ES_MVE_BLOCK_END);
}

static inline int32_t one_by_one(const es_mve_block *block, const int8_t *row,
                                 const int8_t *codes)
{
    int32_t sum = 0;
    __asm volatile("    mov        r0, #0\n"
                   "    vmov.i8    q4, #0xF0\n"
                   "    ldr        lr, [%[block], #8]\n"
                   "    lsr        lr, lr, #5\n"
                   "    wls        lr, lr, 2f\n"
                   "1:  vldrb.8    q0, [%[codes]], #32\n"
                   "    vldrb.8    q1, [%[codes], #-16]\n"
                   "    vldrb.8    q2, [%[row]], #16\n"
                   "    vshl.i8    q3, q2, #4\n"
                   "    vand       q2, q2, q4\n"
                   "    vmladava.s8 r0, q0, q3\n"
                   "    vmladava.s8 r0, q1, q2\n"
                   "    le         lr, 1b\n"
                   "2:  ldrd       r2, r3, [%[block], #48]\n"
                   "    vctp.8     r2\n"
                   "    vpst\n"
                   "    vldrbt.8   q0, [%[codes]]\n"
                   "    add        %[codes], r2\n"
                   "    vctp.8     r3\n"
                   "    vpst\n"
                   "    vldrbt.8   q1, [%[codes]]\n"
                   "    vldrb.8    q2, [%[row]]\n"
                   "    vshl.i8    q3, q2, #4\n"
                   "    vand       q2, q2, q4\n"
                   "    vmladava.s8 r0, q0, q3\n"
                   "    vmladava.s8 r0, q1, q2\n"
                   "    asr        %[sum], r0, #4\n"
                   : [sum] "=r"(sum), [row] "+r"(row), [codes] "+r"(codes)
                   : [block] "r"(block)
                   : "r0", "r2", "r3", "lr", "q0", "q1", "q2", "q3", "q4", "cc", "memory");
    return sum;
}

/* The last one to three channels at one position. */
static void last_channels(const es_mve_conv_args *args, const es_mve_block *block,
                          const int8_t *codes, int8_t *out)
{
    const int32_t row_bytes = (args->depth + 1) / 2;
    const int32_t count = args->window.out_channels & 3;
    const int8_t *rows = args->weights + (args->window.out_channels - count) * row_bytes;
    int32_t sums[4] = {0, 0, 0, 0};
    for (int32_t c = 0; c < count; ++c) {
        sums[c] = one_by_one(block, rows + c * row_bytes, codes);
    }
    const int32x4_t with_bias = vaddq_s32(vldrwq_s32(sums), vldrwq_s32(block->end));
    es_mve_store_few(es_mve_codes(&args->tail, block->end, with_bias), count, out);
}

void es_mve_rows_s4(const es_mve_conv_args *args, es_mve_block *block)
{
    const int32_t channels = args->window.out_channels;
    const int32_t grouped = channels & ~3;
    const int8_t *const second = block->second;
    int8_t *const out = block->out;
    if (grouped) {
        if (!second) { /* the same position twice, to the same place */
            block->second = block->first;
            block->channels = 0;
        }
        four_by_two(block);
        block->channels = channels;
    }
    if (channels > grouped) {
        last_channels(args, block, block->first, out + grouped);
        if (second) {
            last_channels(args, block, second, out + channels + grouped);
        }
    }
}
