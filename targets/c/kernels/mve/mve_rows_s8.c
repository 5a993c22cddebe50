#include "es_mve_block.h"

/* 16 codes of both positions. */
#define FOUR_BY_TWO                    \
    "    vldrb.8    q0, [r1], #16\n"   \
    "    vldrb.8    q2, [r5], #64\n"   \
    "    vmladava.s8 r0, q0, q2\n"     \
    "    vldrb.8    q1, [r3], #16\n"   \
    "    vmladava.s8 r8, q1, q2\n"     \
    "    vldrb.8    q3, [r5, #-48]\n"  \
    "    vmladava.s8 r2, q0, q3\n"     \
    "    vldrb.8    q2, [r5, #-32]\n"  \
    "    vmladava.s8 r10, q1, q3\n"    \
    "    vmladava.s8 r4, q0, q2\n"     \
    "    vldrb.8    q3, [r5, #-16]\n"  \
    "    vmladava.s8 r12, q1, q2\n"    \
    "    vmladava.s8 r6, q0, q3\n"     \
    "    vmladava.s8 lr, q1, q3\n"
#define NEXT_ROW(q)                 \
    "    vldrb.8    " q ", [r5]\n"  \
    "    add        r5, r9\n"

/* In the tail, weights are loaded whole: what they meet behind its end is zero. */
ES_MVE_NAKED static void four_by_two(es_mve_block *block __attribute__((unused)))
{
    __asm volatile(ES_MVE_BLOCK_BEGIN ES_MVE_BLOCK_LIMITS ES_MVE_BLOCK_GROUP
                   "    ldrd       r0, r2, [r7]\n"
                   "    ldrd       r4, r6, [r7, #8]\n"
                   "    ldrd       r8, r10, [r7]\n"
                   "    ldrd       r12, lr, [r7, #8]\n"
                   "    subs       r9, #32\n"
                   "    blt        2f\n"
                   "1:\n" FOUR_BY_TWO FOUR_BY_TWO
                   "    subs       r9, #32\n"
                   "    bge        1b\n"
                   "2:  adds       r9, #16\n"
                   "    blt        3f\n" FOUR_BY_TWO
                   "    subs       r9, #16\n"
                   "3:  adds       r9, #16\n"
                   "    beq        4f\n"
                   "    vctp.8     r9\n"
                   "    vpstt\n"
                   "    vldrbt.8   q0, [r1]\n"
                   "    vldrbt.8   q1, [r3]\n" NEXT_ROW("q2") NEXT_ROW("q3")
                   "    vmladava.s8 r0, q0, q2\n"
                   "    vmladava.s8 r8, q1, q2\n"
                   "    vmladava.s8 r2, q0, q3\n"
                   "    vmladava.s8 r10, q1, q3\n" NEXT_ROW("q2") NEXT_ROW("q3")
                   "    vmladava.s8 r4, q0, q2\n"
                   "    vmladava.s8 r12, q1, q2\n"
                   "    vmladava.s8 r6, q0, q3\n"
                   "    vmladava.s8 lr, q1, q3\n"
                   "4:\n" ES_MVE_BLOCK_SUMS ES_MVE_BLOCK_END);
}

#define NEXT_ROW_ALONE              \
    "    vldrb.8    q2, [r0]\n"     \
    "    add        r0, r3\n"

/* Four channels at one position; returns the weights of the next four. */
ES_MVE_NAKED static const int8_t *four_by_one(const int8_t *weights __attribute__((unused)),
                                              const int32_t *bias __attribute__((unused)),
                                              const int8_t *codes __attribute__((unused)),
                                              int32_t depth __attribute__((unused)),
                                              int32_t *sums __attribute__((unused)))
{
    __asm volatile("    push       {r4, r6, r8, r10, lr}\n"
                   "    ldrd       r4, r6, [r1]\n"
                   "    ldrd       r8, r10, [r1, #8]\n"
                   "    ldr        r1, [sp, #20]\n"
                   "    lsr        lr, r3, #4\n"
                   "    wls        lr, lr, 2f\n"
                   "1:  vldrb.8    q0, [r2], #16\n"
                   "    vldrb.8    q2, [r0], #64\n"
                   "    vmladava.s8 r4, q0, q2\n"
                   "    vldrb.8    q3, [r0, #-48]\n"
                   "    vmladava.s8 r6, q0, q3\n"
                   "    vldrb.8    q2, [r0, #-32]\n"
                   "    vmladava.s8 r8, q0, q2\n"
                   "    vldrb.8    q3, [r0, #-16]\n"
                   "    vmladava.s8 r10, q0, q3\n"
                   "    le         lr, 1b\n"
                   "2:  ands       r3, #15\n"
                   "    beq        4f\n"
                   "    vctp.8     r3\n"
                   "    vpst\n"
                   "    vldrbt.8   q0, [r2]\n" NEXT_ROW_ALONE
                   "    vmladava.s8 r4, q0, q2\n" NEXT_ROW_ALONE
                   "    vmladava.s8 r6, q0, q2\n" NEXT_ROW_ALONE
                   "    vmladava.s8 r8, q0, q2\n" NEXT_ROW_ALONE
                   "    vmladava.s8 r10, q0, q2\n"
                   "4:  strd       r4, r6, [r1]\n"
                   "    strd       r8, r10, [r1, #8]\n"
                   "    pop        {r4, r6, r8, r10, pc}\n");
}

static inline int32_t one_by_one(const int8_t *row, const int8_t *codes, int32_t sum, int32_t left)
{
    __asm volatile("    mov        r0, %[sum]\n"
                   "    wlstp.8    lr, %[left], 2f\n"
                   "1:  vldrb.8    q0, [%[codes]], #16\n"
                   "    vldrb.8    q1, [%[row]], #16\n"
                   "    vmladava.s8 r0, q0, q1\n"
                   "    letp       lr, 1b\n"
                   "2:  mov        %[sum], r0\n"
                   : [sum] "+r"(sum), [row] "+r"(row), [codes] "+r"(codes)
                   : [left] "r"(left)
                   : "r0", "lr", "q0", "q1", "cc", "memory");
    return sum;
}

/* The last one to three channels at one position. */
static void last_channels(const es_mve_conv_args *args, const int8_t *rows, const int32_t *record,
                          const int8_t *codes, int8_t *out)
{
    const int32_t count = args->window.out_channels & 3;
    int32_t sums[4] = {0, 0, 0, 0};
    for (int32_t c = 0; c < count; ++c) {
        sums[c] = one_by_one(rows + c * args->depth, codes, record[c], args->depth);
    }
    es_mve_store_few(es_mve_codes(&args->tail, record, vldrwq_s32(sums)), count, out);
}

void es_mve_rows_s8(const es_mve_conv_args *args, es_mve_block *block)
{
    const es_mve_tail *tail = &args->tail;
    const int32_t channels = args->window.out_channels;
    const int32_t grouped = channels & ~3;
    int8_t *const out = block->out;
    if (block->second && grouped) {
        four_by_two(block);
    } else {
        const int8_t *weights = args->weights;
        const int32_t *record = tail->records;
        for (int32_t c = 0; c < grouped; c += 4) {
            int32_t sums[4];
            weights = four_by_one(weights, record, block->first, args->depth, sums);
            vstrbq_s32(out + c, es_mve_codes(tail, record, vldrwq_s32(sums)));
            record += ES_MVE_RECORD;
        }
    }
    if (channels > grouped) {
        const int8_t *rows = args->weights + grouped * args->depth;
        last_channels(args, rows, block->end, block->first, out + grouped);
        if (block->second) {
            last_channels(args, rows, block->end, block->second, out + channels + grouped);
        }
    }
}
