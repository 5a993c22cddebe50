/* Products of one row of int8 activations and eight channels at a time, int8 weights.
 *
 * Weight words as in dsp_matrix_s8.c; the row is widened as it is read, so it needs no
 * scratch. 32 multiply-accumulates take 31 instructions. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

es_dsp_run es_dsp_row_s8_run;
void es_dsp_row_s8_tail(void);
void es_dsp_row_s8_floored(void);
void es_dsp_row_s8_rounded(void);

const es_dsp_core es_dsp_row_s8 = {
    .run = es_dsp_row_s8_run,
    .tail = es_dsp_row_s8_tail,
    .floored = es_dsp_row_s8_floored,
    .rounded = es_dsp_row_s8_rounded,
    .step_code = 124,
    .unrolled = 4,
    .step_x = 4,
    .word_steps = 1,
    .word_weights = 32,
    .group = 8,
    .group_words = 24,
};

/* clang-format off */
__asm__(
    ES_ASM_ROW_FRAME
    ES_ASM_REQUANTIZE
    ES_ASM_ROW_STORE
    ".macro es_pairs x, a, b, c, d\n"
    "ldrd r10, r11, [lr], #8\n"
    "smlad \\b, r10, \\x, \\b\n"
    "smlad \\d, r11, \\x, \\d\n"
    "sxtb16 r10, r10\n"
    "sxtb16 r11, r11\n"
    "smlad \\a, r10, \\x, \\a\n"
    "smlad \\c, r11, \\x, \\c\n"
    ".endm\n"
    ".macro es_step\n"
    "ldr.w r9, [r12], #4\n"
    "sxtb16 r8, r9\n"
    "sxtb16 r9, r9, ror #8\n"
    "es_pairs r8, r0, r1, r2, r3\n"
    "es_pairs r8, r4, r5, r6, r7\n"
    "es_pairs r9, r0, r1, r2, r3\n"
    "es_pairs r9, r4, r5, r6, r7\n"
    ".endm\n"
    ".macro es_separate a, b\n"
    "sub \\b, \\b, \\a\n"
    "asr \\b, \\b, #7\n"
    "add \\a, \\a, \\a\n"
    ".endm\n"
    ".macro es_epilogue rounded\n"
    "ldr r12, [sp, #es_table]\n"
    "es_separate r0, r1\n"
    "es_separate r2, r3\n"
    "es_separate r4, r5\n"
    "es_separate r6, r7\n"
    "es_scale_row \\rounded\n"
    "es_store_row 28\n"
    ".endm\n"
    ES_ASM_FUNCTION(es_dsp_row_s8_run)
    ES_ASM_ROW_HEAD("")
    ".balign 4\n"
    "2:\n"
    ".rept 4\n"
    "es_step\n"
    ".endr\n"
    ES_ASM_LABEL(es_dsp_row_s8_tail)
    ES_ASM_ROW_LOOP
    ES_ASM_LABEL(es_dsp_row_s8_floored)
    "es_epilogue 0\n"
    ES_ASM_LABEL(es_dsp_row_s8_rounded)
    "es_epilogue 1\n"
    ES_ASM_END(es_dsp_row_s8_run)
    ".text\n"
);
/* clang-format on */
