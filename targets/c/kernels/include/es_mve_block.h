/* All groups of four channels at two positions at once, in assembly.
 *
 * VMLADAVA adds 16 products to one of the eight even core registers. With all of them as sums the
 * odd ones hold all else: no compiler finds such an allocation at every optimization level.
 *
 *   r0 r2 r4 r6      sums of the first position     r1  its codes
 *   r8 r10 r12 lr    of the second one              r3  its codes
 *   r5 weights   r7 record   r9 codes left   r11 es_mve_block */
#ifndef ES_MVE_BLOCK_H
#define ES_MVE_BLOCK_H

#include <stddef.h>

#include "es_mve_core.h"

typedef struct {
    const int8_t *first, *second; /* at 0, 4 */
    int32_t depth;                /* 8 */
    const int32_t *end;           /* 12: behind the last record */
    int8_t *out;                  /* 16 */
    int32_t channels;             /* 20 */
    int32_t zero, ties;           /* 24, 28 */
    int32_t low, high;            /* 32, 36 */
    const int8_t *weights;        /* 40 */
    const int32_t *record;        /* 44 */
    int32_t tail_low, tail_high;  /* 48, 52: of 4-bit weights */
} es_mve_block;

_Static_assert(sizeof(void *) == 4 && offsetof(es_mve_block, tail_high) == 52,
               "the assembly knows these offsets");

#define ES_MVE_BLOCK_BEGIN                     \
    "    push       {r4-r11, lr}\n"            \
    "    vpush      {d8-d15}\n"                \
    "    mov        r11, r0\n"                 \
    "    ldrd       r5, r7, [r11, #40]\n"

#define ES_MVE_BLOCK_LIMITS           \
    "    ldrd       r0, r2, [r11, #32]\n" \
    "    vdup.32    q4, r0\n"         \
    "    vdup.32    q5, r2\n"

#define ES_MVE_BLOCK_GROUP                \
    "10: ldrd       r1, r3, [r11]\n"      \
    "    ldr        r9, [r11, #8]\n"

#define ES_MVE_BLOCK_SUMS                     \
    "    vmov       q0[2], q0[0], r0, r4\n"   \
    "    vmov       q0[3], q0[1], r2, r6\n"   \
    "    vmov       q1[2], q1[0], r8, r12\n"  \
    "    vmov       q1[3], q1[1], r10, lr\n"

/* The sums in q0 and q1 to codes, as `es_mve_requantize` says, with limits in q4 and q5; then the
 * next group. */
#define ES_MVE_BLOCK_END                      \
    "    vldrw.32   q2, [r7, #16]\n"          \
    "    vldrb.s32  q3, [r7, #32]\n"          \
    "    ldrd       r2, r6, [r11, #24]\n"     \
    "    ldrd       r0, r4, [r11, #16]\n"     \
    "    cbz        r6, 12f\n"                \
    "    cmp        r6, #1\n"                 \
    "    beq        11f\n"                    \
    "    vmov.i32   q6, #0\n"                 \
    "    vmax.s32   q7, q3, q6\n"             \
    "    vmin.s32   q3, q3, q6\n"             \
    "    vshl.s32   q0, q0, q7\n"             \
    "    vshl.s32   q1, q1, q7\n"             \
    "    vqrdmulh.s32 q0, q0, q2\n"           \
    "    vqrdmulh.s32 q1, q1, q2\n"           \
    "    vand       q6, q0, q3\n"             \
    "    vand       q7, q1, q3\n"             \
    "    vshr.s32   q6, q6, #31\n"            \
    "    vshr.s32   q7, q7, #31\n"            \
    "    vadd.i32   q0, q0, q6\n"             \
    "    vadd.i32   q1, q1, q7\n"             \
    "    b          13f\n"                    \
    "11: vqrdmulh.s32 q0, q0, q2\n"           \
    "    vqrdmulh.s32 q1, q1, q2\n"           \
    "    vshr.s32   q6, q0, #31\n"            \
    "    vshr.s32   q7, q1, #31\n"            \
    "    vadd.i32   q0, q0, q6\n"             \
    "    vadd.i32   q1, q1, q7\n"             \
    "    b          13f\n"                    \
    "12: vqrdmulh.s32 q0, q0, q2\n"           \
    "    vqrdmulh.s32 q1, q1, q2\n"           \
    "13: vrshl.s32  q0, q0, q3\n"             \
    "    add        r4, r0\n"                 \
    "    vrshl.s32  q1, q1, q3\n"             \
    "    add        r7, #36\n"                \
    "    vadd.i32   q0, q0, r2\n"             \
    "    vadd.i32   q1, q1, r2\n"             \
    "    vmax.s32   q0, q0, q4\n"             \
    "    vmax.s32   q1, q1, q4\n"             \
    "    vmin.s32   q0, q0, q5\n"             \
    "    vmin.s32   q1, q1, q5\n"             \
    "    vstrb.32   q0, [r0], #4\n"           \
    "    ldr        r2, [r11, #12]\n"         \
    "    vstrb.32   q1, [r4]\n"               \
    "    str        r0, [r11, #16]\n"         \
    "    cmp        r7, r2\n"                 \
    "    bne        10b\n"                    \
    "    vpop       {d8-d15}\n"               \
    "    pop        {r4-r11, pc}\n"

/* What does not change from position to position. */
static inline es_mve_block es_mve_block_of(const es_mve_conv_args *args)
{
    const es_mve_tail *tail = &args->tail;
    const int32_t channels = args->window.out_channels;
    const int32_t left = args->depth & 31;
    const es_mve_block block = {
        .depth = args->depth,
        .end = tail->records + ES_MVE_RECORD * (channels >> 2),
        .channels = channels,
        .zero = tail->zero,
        .ties = tail->ties,
        .low = tail->low,
        .high = tail->high,
        .weights = args->weights,
        .record = tail->records,
        .tail_low = (left + 1) / 2,
        .tail_high = left / 2,
    };
    return block;
}

/* All output channels of the positions whose codes lie at `first` and, unless it is NULL,
 * `second`. */
void es_mve_rows_s8(const es_mve_conv_args *args, es_mve_block *block);
void es_mve_rows_s4(const es_mve_conv_args *args, es_mve_block *block);
void es_mve_rows_s16(const es_mve_conv_args *args, es_mve_block *block);

/* A function of one argument without prologue: its body is its assembly. */
#define ES_MVE_NAKED __attribute__((naked, noinline))

#endif
