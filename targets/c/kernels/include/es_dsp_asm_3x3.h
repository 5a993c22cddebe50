/* Assembly of the 3 x 3 depthwise kernels.
 *
 * r0 and r1 sum, r2..r7 hold the weights of the three rows as halves {w0, w1}, {w1, w2}, both
 * doubled (the requantization takes doubled sums); r10, r11 and r12 walk the plane's rows and
 * lr the output. The rest is on the stack: */
#ifndef ES_DSP_ASM_3X3_H
#define ES_DSP_ASM_3X3_H

#include "es_dsp_asm.h"

#define ES_ASM_3X3_FRAME                  \
    ".set es_bias, 0\n"                   \
    ".set es_row_end, 4\n"                \
    ".set es_multiplier, 8\n"             \
    ".set es_shift, 16\n"                 \
    ".set es_skip, 24\n"                  \
    ".set es_after, 32\n"                 \
    ".set es_end, 36\n"

#define ES_ASM_3X3_HEAD                   \
    ".macro es_head\n"                    \
    "push {r4-r11, lr}\n"                 \
    "sub sp, sp, #40\n"                   \
    "mov lr, r3\n"                        \
    "ldm r0, {r4-r10}\n"                  \
    "ldm r2, {r2, r3, r12}\n"             \
    "strd r9, r10, [sp, #es_after]\n"     \
    "strd r7, r8, [sp, #es_skip]\n"       \
    "strd r12, r6, [sp, #es_shift]\n"     \
    "asr r12, r12, #8\n"                  \
    "strd r3, r12, [sp, #es_multiplier]\n" \
    "add r2, r2, r2\n"                    \
    "add r3, r4, r8\n"                    \
    "strd r2, r3, [sp, #es_bias]\n"       \
    "mov r10, r4\n"                       \
    "add r11, r10, r5\n"                  \
    "add r12, r11, r5\n"                  \
    "es_weights\n"                        \
    ".endm\n"

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

/* Sum to code before the last shift; r8 has the multiplier and r9 the centre. */
#define ES_ASM_3X3_SCALE                  \
    ".macro es_scale p, rounded\n"        \
    ".if \\rounded\n"                     \
    "add r9, r9, \\p, asr #31\n"          \
    ".endif\n"                            \
    "smmlar \\p, \\p, r8, r9\n"           \
    ".endm\n"                             \
    ".macro es_one_row x, even, odd, advance\n" \
    ".if \\advance\n"                     \
    "ldrd r8, r9, [\\x], #4\n"            \
    ".else\n"                             \
    "ldrd r8, r9, [\\x]\n"                \
    ".endif\n"                            \
    "smlad r0, \\even, r8, r0\n"          \
    "smlatb r0, \\odd, r9, r0\n"          \
    ".endm\n"                             \
    ".macro es_one rounded, advance\n"    \
    "ldr r0, [sp, #es_bias]\n"            \
    "es_one_row r10, r2, r3, \\advance\n" \
    "es_one_row r11, r4, r5, \\advance\n" \
    "es_one_row r12, r6, r7, \\advance\n" \
    "ldrd r8, r9, [sp, #es_multiplier]\n" \
    "es_scale r0, \\rounded\n"            \
    "ldrd r8, r9, [sp, #es_shift]\n"      \
    "asr r0, r0, r8\n"                    \
    "ssat r0, #8, r0\n"                   \
    "strb r0, [lr]\n"                     \
    "add lr, lr, r9\n"                    \
    ".endm\n"                             \
    ".macro es_more\n"                    \
    "ldr r8, [sp, #es_row_end]\n"         \
    "cmp r10, r8\n"                       \
    "bne 1b\n"                            \
    ".endm\n"                             \
    ".macro es_next_row\n"                \
    "ldrd r8, r9, [sp, #es_skip]\n"       \
    "add r10, r10, r8\n"                  \
    "add r11, r11, r8\n"                  \
    "add r12, r12, r8\n"                  \
    "ldr r8, [sp, #es_end]\n"             \
    "add r9, r9, r10\n"                   \
    "str r9, [sp, #es_row_end]\n"         \
    "cmp r10, r8\n"                       \
    "bne 1b\n"                            \
    "add sp, sp, #40\n"                   \
    "pop {r4-r11, pc}\n"                  \
    ".endm\n"

/* Two neighbours per step; an odd last column alone. */
#define ES_ASM_3X3_STRIDE1(name, rounded) \
    ES_ASM_FUNCTION(name)                 \
    "es_head\n"                           \
    "1:\n"                                \
    "ldr r0, [sp, #es_bias]\n"            \
    "ldrd r8, r9, [r10], #4\n"            \
    "smlabt r1, r2, r8, r0\n"             \
    "smlad r0, r2, r8, r0\n"              \
    "smlad r1, r3, r9, r1\n"              \
    "smlatb r0, r3, r9, r0\n"             \
    "ldrd r8, r9, [r11], #4\n"            \
    "smlad r0, r4, r8, r0\n"              \
    "smlabt r1, r4, r8, r1\n"             \
    "smlatb r0, r5, r9, r0\n"             \
    "smlad r1, r5, r9, r1\n"              \
    "ldrd r8, r9, [r12], #4\n"            \
    "smlad r0, r6, r8, r0\n"              \
    "smlabt r1, r6, r8, r1\n"             \
    "smlatb r0, r7, r9, r0\n"             \
    "smlad r1, r7, r9, r1\n"              \
    "ldrd r8, r9, [sp, #es_multiplier]\n" \
    "es_scale r0, " #rounded "\n"         \
    ".if " #rounded "\n"                  \
    "ldr r9, [sp, #(es_multiplier + 4)]\n" \
    ".endif\n"                            \
    "es_scale r1, " #rounded "\n"         \
    "ldrd r8, r9, [sp, #es_shift]\n"      \
    "asr r0, r0, r8\n"                    \
    "asr r1, r1, r8\n"                    \
    "ssat r0, #8, r0\n"                   \
    "ssat r1, #8, r1\n"                   \
    "strb r0, [lr]\n"                     \
    "strb r1, [lr, r9]\n"                 \
    "add lr, lr, r9, lsl #1\n"            \
    "es_more\n"                           \
    "ldr pc, [sp, #es_after]\n"           \
    ES_ASM_LABEL(name##_odd)              \
    "es_one " #rounded ", 0\n"            \
    ES_ASM_LABEL(name##_even)             \
    "es_next_row\n"                       \
    ES_ASM_END(name)

/* Every second column and row. */
#define ES_ASM_3X3_STRIDE2(name, rounded) \
    ES_ASM_FUNCTION(name)                 \
    "es_head\n"                           \
    "1:\n"                                \
    "es_one " #rounded ", 1\n"            \
    "es_more\n"                           \
    "es_next_row\n"                       \
    ES_ASM_END(name)

#endif
