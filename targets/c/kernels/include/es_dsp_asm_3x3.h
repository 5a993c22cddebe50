/* Assembly of the 3 x 3 depthwise kernels: sums of some rows, then their codes.
 *
 * r0 and r1 sum, r2..r7 hold the weights of the three rows as halves {w0, w1}, {w1, w2}, both
 * doubled (the requantization takes doubled sums); r8..r10 hold two columns of the three rows,
 * which the next step uses again, r11 walks the plane, whose pitch is r12, and lr the sums.
 * The rest is on the stack, multiplier, rounding and centre after `es_out`: */
#ifndef ES_DSP_ASM_3X3_H
#define ES_DSP_ASM_3X3_H

#include "es_dsp_asm.h"

#define ES_ASM_3X3_FRAME                  \
    ".set es_bias, 0\n"                   \
    ".set es_row_end, 4\n"                \
    ".set es_chunk_end, 8\n"              \
    ".set es_skip, 12\n"                  \
    ".set es_back, 16\n"                  \
    ".set es_row_bytes, 20\n"             \
    ".set es_plane, 24\n"                 \
    ".set es_out, 28\n"                   \
    ".set es_base, 44\n"                  \
    ".set es_kept, 48\n"                  \
    ".set es_enter, 72\n"                 \
    ".set es_frame, 76\n"

/* Nine bytes at any address. */
#define ES_ASM_3X3_WEIGHTS_S8             \
    ".macro es_row even, odd, offset\n"   \
    "ldr \\even, [r1, #\\offset]\n"       \
    "sxtb16 \\odd, \\even, ror #8\n"      \
    "sxtb16 \\even, \\even\n"             \
    "pkhbt \\odd, \\odd, \\even\n"        \
    "pkhbt \\even, \\even, \\odd, lsl #16\n" \
    "sadd16 \\odd, \\odd, \\odd\n"        \
    "sadd16 \\even, \\even, \\even\n"     \
    ".endm\n"                             \
    ".macro es_weights\n"                 \
    "es_row r2, r3, 0\n"                  \
    "es_row r4, r5, 3\n"                  \
    "es_row r6, r7, 6\n"                  \
    ".endm\n"

/* Five bytes, codes plus 8. In the word, bits 4 r and 4 r + 16 have w0 and w2 of row r, bits 12
 * and 28 have w1 of rows 0 and 1; the last byte has w1 of row 2. */
#define ES_ASM_3X3_WEIGHTS_S4             \
    ".macro es_weights\n"                 \
    "ldr r8, [r1]\n"                      \
    "ldrb r1, [r1, #4]\n"                 \
    "mov r9, #0x001e001e\n"               \
    "mov r0, #0x00100010\n"               \
    "and r2, r9, r8, lsl #1\n"            \
    "and r4, r9, r8, lsr #3\n"            \
    "and r6, r9, r8, lsr #7\n"            \
    "and r8, r9, r8, lsr #11\n"           \
    "lsl r1, r1, #1\n"                    \
    "ssub16 r2, r2, r0\n"                 \
    "ssub16 r4, r4, r0\n"                 \
    "ssub16 r6, r6, r0\n"                 \
    "ssub16 r8, r8, r0\n"                 \
    "ssub16 r1, r1, r0\n"                 \
    "pkhbt r3, r8, r2\n"                  \
    "pkhtb r5, r4, r8, asr #16\n"         \
    "pkhbt r7, r1, r6\n"                  \
    "pkhbt r2, r2, r3, lsl #16\n"         \
    "pkhbt r4, r4, r5, lsl #16\n"         \
    "pkhbt r6, r6, r7, lsl #16\n"         \
    ".endm\n"

/* Two neighbours: r0 and r1 from the halves {x0, x1} and {x2, x3} of three rows. */
#define ES_ASM_3X3_STRIDE1                \
    ".macro es_step\n"                    \
    "smlabt r1, r2, r8, r0\n"             \
    "smlad r0, r2, r8, r0\n"              \
    "smlabt r1, r4, r9, r1\n"             \
    "smlad r0, r4, r9, r0\n"              \
    "smlabt r1, r6, r10, r1\n"            \
    "smlad r0, r6, r10, r0\n"             \
    "es_columns\n"                        \
    "smlatb r0, r3, r8, r0\n"             \
    "smlad r1, r3, r8, r1\n"              \
    "smlatb r0, r5, r9, r0\n"             \
    "smlad r1, r5, r9, r1\n"              \
    "smlatb r0, r7, r10, r0\n"            \
    "smlad r1, r7, r10, r1\n"             \
    "str r0, [lr], #4\n"                  \
    "str r1, [lr], #4\n"                  \
    ".endm\n"

/* Every second column. */
#define ES_ASM_3X3_STRIDE2                \
    ".macro es_step\n"                    \
    "smlad r0, r2, r8, r0\n"              \
    "smlad r0, r4, r9, r0\n"              \
    "smlad r0, r6, r10, r0\n"             \
    "es_columns\n"                        \
    "smlatb r0, r3, r8, r0\n"             \
    "smlatb r0, r5, r9, r0\n"             \
    "smlatb r0, r7, r10, r0\n"            \
    "str r0, [lr], #4\n"                  \
    ".endm\n"

/* A channel. Loads stand together where they can: a load next to another takes less time. */
#define ES_ASM_3X3_RUN(name)              \
    ".macro es_columns\n"                 \
    "ldr r8, [r11, #4]!\n"                \
    "ldr r9, [r11, r12]\n"                \
    "ldr r10, [r11, r12, lsl #1]\n"       \
    ".endm\n"                             \
    ES_ASM_FUNCTION(name)                 \
    "push {r4-r11, lr}\n"                 \
    "sub sp, sp, #es_frame\n"             \
    "ldm r0, {r4, r5, r6, r11, r12}\n"    \
    "ldm r2, {r7, r8, r9}\n"              \
    "add lr, sp, #es_skip\n"              \
    "asr r10, r9, #8\n"                   \
    "stm lr!, {r4, r5, r6}\n"             \
    "add r7, r7, r7\n"                    \
    "stm lr, {r0, r3, r8, r9, r10}\n"     \
    "str r7, [sp, #es_bias]\n"            \
    "ldr r4, [r0, #44]\n"                 \
    "str r4, [sp, #es_enter]\n"           \
    "es_weights\n"                        \
    "add r10, sp, #es_kept\n"             \
    "stm r10, {r2-r7}\n"                  \
    "1:\n"                                \
    "ldr r10, [sp, #es_plane]\n"          \
    "ldrd r8, r9, [r10, #20]\n"           \
    "ldr lr, [r10, #32]\n"                \
    "ldr r10, [sp, #es_row_bytes]\n"      \
    "add r8, r11, r8\n"                   \
    "cmp r8, r9\n"                        \
    "it hi\n"                             \
    "movhi r8, r9\n"                      \
    "str r8, [sp, #es_chunk_end]\n"       \
    "2:\n"                                \
    "add r10, r11, r10\n"                 \
    "str r10, [sp, #es_row_end]\n"        \
    "ldr r8, [r11]\n"                     \
    "ldr r9, [r11, r12]\n"                \
    "ldr r10, [r11, r12, lsl #1]\n"       \
    "ldr r1, [sp, #es_enter]\n"           \
    "ldr r0, [sp, #es_bias]\n"            \
    "bx r1\n"                             \
    ".balign 4\n"                         \
    "3:\n"                                \
    ".rept 4\n"                           \
    "es_step\n"                           \
    "ldr.w r0, [sp, #es_bias]\n"          \
    ".endr\n"                             \
    ES_ASM_LABEL(name##_tail)             \
    "ldr r1, [sp, #es_row_end]\n"         \
    "cmp r11, r1\n"                       \
    "bne 3b\n"                            \
    "ldr r8, [sp, #es_skip]\n"            \
    "ldr r9, [sp, #es_back]\n"            \
    "ldr r10, [sp, #es_row_bytes]\n"      \
    "ldr r1, [sp, #es_chunk_end]\n"       \
    "add r11, r11, r8\n"                  \
    "sub lr, lr, r9\n"                    \
    "cmp r11, r1\n"                       \
    "bne 2b\n"                            \
    "str r11, [sp, #es_base]\n"           \
    "ldr r10, [sp, #es_plane]\n"          \
    "add r8, sp, #es_out\n"               \
    "ldm r8, {r1, r4, r5, r6}\n"          \
    "ldrd r2, r3, [r10, #36]\n"           \
    "ldr r8, [r10, #28]\n"                \
    "ldr r0, [r10, #32]\n"                \
    "sub r7, lr, r0\n"                    \
    "blx r8\n"                            \
    "str r1, [sp, #es_out]\n"             \
    "ldr r10, [sp, #es_plane]\n"          \
    "ldr r11, [sp, #es_base]\n"           \
    "ldr r12, [r10, #16]\n"               \
    "ldr r0, [r10, #24]\n"                \
    "add r9, sp, #es_kept\n"              \
    "ldm r9, {r2-r7}\n"                   \
    "cmp r11, r0\n"                       \
    "bne 1b\n"                            \
    "add sp, sp, #es_frame\n"             \
    "pop {r4-r11, pc}\n"                  \
    ES_ASM_END(name)

#endif
