/* Products of two pixels and four channels at a time, int4 weights.
 *
 * x as in dsp_matrix_s8.c. Half a weight word holds four channels of one input element: from
 * the top w3, w2 + 8, w1 + 8 and w0 + 8, four bits each. The half as it is, and with the top
 * channel cleared, then the next two, give four sums that differ by 4096 S3, 256 (S2 + 8 X),
 * 16 (S1 + 8 X) and S0 + 8 X modulo 2^32, X being the sum of the pixel's elements; packing
 * makes sure that these differences fit. 32 multiply-accumulates take 25 instructions. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

es_dsp_run es_dsp_matrix_s4_run;
void es_dsp_matrix_s4_tail(void);
void es_dsp_matrix_s4_floored(void);
void es_dsp_matrix_s4_rounded(void);

const es_dsp_core es_dsp_matrix_s4 = {
    .run = es_dsp_matrix_s4_run,
    .tail = es_dsp_matrix_s4_tail,
    .floored = es_dsp_matrix_s4_floored,
    .rounded = es_dsp_matrix_s4_rounded,
    .step_code = 100,
    .unrolled = 8,
    .step_x = 16,
    .word_steps = 1,
    .word_weights = 8,
    .group = 4,
    .group_words = 12,
    .pair = es_dsp_expand_pair_summed,
    .one = es_dsp_expand_one_summed,
};

/* clang-format off */
__asm__(
    ES_ASM_MATRIX_FRAME
    ".set es_sums, 32\n"
    ES_ASM_REQUANTIZE
    ES_ASM_MATRIX_STORE
    ".macro es_pair w\n"
    "ldrd r8, r9, [r12], #8\n"
    "smlad r6, \\w, r8, r6\n"
    "smlad r7, \\w, r9, r7\n"
    "bic \\w, \\w, #0xf000f000\n"
    "smlad r4, \\w, r8, r4\n"
    "smlad r5, \\w, r9, r5\n"
    "uxtb16 \\w, \\w\n"
    "smlad r2, \\w, r8, r2\n"
    "smlad r3, \\w, r9, r3\n"
    "bic \\w, \\w, #0x00f000f0\n"
    "smlad r0, \\w, r8, r0\n"
    "smlad r1, \\w, r9, r1\n"
    ".endm\n"
    ".macro es_step\n"
    "ldrd r10, r11, [lr], #8\n"
    "es_pair r10\n"
    "es_pair r11\n"
    ".endm\n"
    /* Doubled sums; `offset` is 16 X. */
    ".macro es_separate a, b, c, d, offset\n"
    "sub \\d, \\d, \\c\n"
    "sub \\c, \\c, \\b\n"
    "sub \\b, \\b, \\a\n"
    "asr \\d, \\d, #11\n"
    "rsb \\c, \\offset, \\c, asr #7\n"
    "rsb \\b, \\offset, \\b, asr #3\n"
    "rsb \\a, \\offset, \\a, lsl #1\n"
    ".endm\n"
    ".macro es_epilogue rounded\n"
    "ldrd r8, r9, [sp, #es_sums]\n"
    "ldr r12, [sp, #es_table]\n"
    "es_separate r0, r2, r4, r6, r8\n"
    "es_separate r1, r3, r5, r7, r9\n"
    "es_scale r0, r1, 16, \\rounded\n"
    "es_scale r2, r3, 24, \\rounded\n"
    "es_scale r4, r5, 32, \\rounded\n"
    "es_scale r6, r7, 40, \\rounded\n"
    "es_store\n"
    ES_ASM_RETURN(40)
    ".endm\n"
);
__asm__(
    ES_ASM_FUNCTION(es_dsp_matrix_s4_run)
    ES_ASM_MATRIX_HEAD(
        "ldr r12, [r0]\n"
        "ldrd r11, r12, [r12, #-8]\n"
        "lsl r11, r11, #4\n"
        "lsl r12, r12, #4\n"
        "push {r11, r12}\n")
    ".balign 4\n"
    "2:\n"
    ".rept 8\n"
    "es_step\n"
    ".endr\n"
    ES_ASM_LABEL(es_dsp_matrix_s4_tail)
    ES_ASM_MATRIX_LOOP
    ES_ASM_LABEL(es_dsp_matrix_s4_floored)
    "es_epilogue 0\n"
    ES_ASM_LABEL(es_dsp_matrix_s4_rounded)
    "es_epilogue 1\n"
    ES_ASM_END(es_dsp_matrix_s4_run)
    ".text\n"
);
/* clang-format on */
