/* Products of one row of int8 activations and eight channels at a time, int4 weights.
 *
 * Weight words as in dsp_matrix_s4.c. 32 multiply-accumulates take 33 instructions; the sum of
 * the row's elements is made once, from its bytes with the sign bit flipped. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

es_dsp_run es_dsp_row_s4_run;
void es_dsp_row_s4_tail(void);
void es_dsp_row_s4_floored(void);
void es_dsp_row_s4_rounded(void);
int32_t es_dsp_row_s4_offset(const void *row, int32_t words);

const es_dsp_core es_dsp_row_s4 = {
    .run = es_dsp_row_s4_run,
    .tail = es_dsp_row_s4_tail,
    .floored = es_dsp_row_s4_floored,
    .rounded = es_dsp_row_s4_rounded,
    .step_code = 132,
    .unrolled = 4,
    .step_x = 4,
    .word_steps = 1,
    .word_weights = 16,
    .group = 8,
    .group_words = 24,
    .offset = es_dsp_row_s4_offset,
};

/* clang-format off */
__asm__(
    ES_ASM_ROW_FRAME
    ".set es_sum, 28\n"
    ES_ASM_REQUANTIZE
    ES_ASM_ROW_STORE
    ".macro es_quad w, x, a, b, c, d\n"
    "smlad \\d, \\w, \\x, \\d\n"
    "bic \\w, \\w, #0xf000f000\n"
    "smlad \\c, \\w, \\x, \\c\n"
    "uxtb16 \\w, \\w\n"
    "smlad \\b, \\w, \\x, \\b\n"
    "bic \\w, \\w, #0x00f000f0\n"
    "smlad \\a, \\w, \\x, \\a\n"
    ".endm\n"
    ".macro es_pair x\n"
    "ldrd r10, r11, [lr], #8\n"
    "es_quad r10, \\x, r0, r1, r2, r3\n"
    "es_quad r11, \\x, r4, r5, r6, r7\n"
    ".endm\n"
    ".macro es_step\n"
    "ldr.w r9, [r12], #4\n"
    "sxtb16 r8, r9\n"
    "sxtb16 r9, r9, ror #8\n"
    "es_pair r8\n"
    "es_pair r9\n"
    ".endm\n"
    ".macro es_separate a, b, c, d\n"
    "sub \\d, \\d, \\c\n"
    "sub \\c, \\c, \\b\n"
    "sub \\b, \\b, \\a\n"
    "asr \\d, \\d, #11\n"
    "rsb \\c, r8, \\c, asr #7\n"
    "rsb \\b, r8, \\b, asr #3\n"
    "rsb \\a, r8, \\a, lsl #1\n"
    ".endm\n"
    ".macro es_add_four\n"
    "ldr r12, [r0], #4\n"
    "eor r12, r12, #0x80808080\n"
    "usada8 r3, r12, r2, r3\n"
    ".endm\n"
    ".macro es_epilogue rounded\n"
    "ldr r8, [sp, #es_sum]\n"
    "ldr r12, [sp, #es_table]\n"
    "es_separate r0, r1, r2, r3\n"
    "es_separate r4, r5, r6, r7\n"
    "es_scale_row \\rounded\n"
    "es_store_row 36\n"
    ".endm\n"
);
__asm__(
    ES_ASM_FUNCTION(es_dsp_row_s4_run)
    ES_ASM_ROW_HEAD(
        "ldr r11, [r0, #28]\n"
        "push {r11, r12}\n")
    ".balign 4\n"
    "2:\n"
    ".rept 4\n"
    "es_step\n"
    ".endr\n"
    ES_ASM_LABEL(es_dsp_row_s4_tail)
    ES_ASM_ROW_LOOP
    ES_ASM_LABEL(es_dsp_row_s4_floored)
    "es_epilogue 0\n"
    ES_ASM_LABEL(es_dsp_row_s4_rounded)
    "es_epilogue 1\n"
    ES_ASM_END(es_dsp_row_s4_run)
    ES_ASM_FUNCTION(es_dsp_row_s4_offset)
    "push {r4}\n"
    "movs r2, #0\n"
    "sub r3, r2, r1, lsl #9\n"
    "ands r4, r1, #3\n"
    "beq 2f\n"
    "1:\n"
    "es_add_four\n"
    "subs r4, r4, #1\n"
    "bne 1b\n"
    "2:\n"
    "lsrs r1, r1, #2\n"
    "beq 4f\n"
    "3:\n"
    ".rept 4\n"
    "es_add_four\n"
    ".endr\n"
    "subs r1, r1, #1\n"
    "bne 3b\n"
    "4:\n"
    "pop {r4}\n"
    "lsl r0, r3, #4\n"
    "bx lr\n"
    ES_ASM_END(es_dsp_row_s4_offset)
    ".text\n"
);
/* clang-format on */
