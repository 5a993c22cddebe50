/* As dsp_matrix_s8.c for any sums and weights: the bytes of a weight half are two channels'
 * weights, each sign-extended on its own. 16 multiply-accumulates take 15 instructions. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

es_dsp_run es_dsp_matrix_wide_s8_run;
void es_dsp_matrix_wide_s8_tail(void);
void es_dsp_matrix_wide_s8_floored(void);
void es_dsp_matrix_wide_s8_rounded(void);

const es_dsp_core es_dsp_matrix_wide_s8 = {
    .run = es_dsp_matrix_wide_s8_run,
    .tail = es_dsp_matrix_wide_s8_tail,
    .floored = es_dsp_matrix_wide_s8_floored,
    .rounded = es_dsp_matrix_wide_s8_rounded,
    .step_code = 60,
    .unrolled = 8,
    .step_x = 8,
    .word_steps = 2,
    .word_weights = 16,
    .group = 4,
    .group_words = 12,
    .pair = es_dsp_expand_pair,
    .one = es_dsp_expand_one,
};

/* clang-format off */
__asm__(
    ES_ASM_MATRIX_FRAME
    ES_ASM_REQUANTIZE
    ES_ASM_MATRIX_STORE
    ".macro es_two a0, a1, b0, b1\n"
    "ldr r10, [lr], #4\n"
    "sxtb16 r11, r10\n"
    "sxtb16 r10, r10, ror #8\n"
    "smlad \\a0, r11, r8, \\a0\n"
    "smlad \\a1, r11, r9, \\a1\n"
    "smlad \\b0, r10, r8, \\b0\n"
    "smlad \\b1, r10, r9, \\b1\n"
    ".endm\n"
    ".macro es_step\n"
    "ldrd r8, r9, [r12], #8\n"
    "es_two r0, r1, r2, r3\n"
    "es_two r4, r5, r6, r7\n"
    ".endm\n"
    ".macro es_epilogue rounded\n"
    "ldr r12, [sp, #es_table]\n"
    ".irp p, 0, 1, 2, 3, 4, 5, 6, 7\n"
    "add.w r\\p, r\\p, r\\p\n"
    ".endr\n"
    "es_scale r0, r1, 16, \\rounded\n"
    "es_scale r2, r3, 24, \\rounded\n"
    "es_scale r4, r5, 32, \\rounded\n"
    "es_scale r6, r7, 40, \\rounded\n"
    "es_store\n"
    ES_ASM_RETURN(32)
    ".endm\n"
    ES_ASM_FUNCTION(es_dsp_matrix_wide_s8_run)
    ES_ASM_MATRIX_HEAD("")
    ".balign 4\n"
    "2:\n"
    ".rept 8\n"
    "es_step\n"
    ".endr\n"
    ES_ASM_LABEL(es_dsp_matrix_wide_s8_tail)
    ES_ASM_MATRIX_LOOP
    ES_ASM_LABEL(es_dsp_matrix_wide_s8_floored)
    "es_epilogue 0\n"
    ES_ASM_LABEL(es_dsp_matrix_wide_s8_rounded)
    "es_epilogue 1\n"
    ES_ASM_END(es_dsp_matrix_wide_s8_run)
    ".text\n"
);
/* clang-format on */
