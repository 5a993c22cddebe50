/* Products of two pixels and four channels at a time, int8 weights.
 *
 * x: int16 pairs of both pixels in turn, {k0, k2} then {k1, k3} for every four elements, as
 * SXTB16 leaves them. A weight word holds, per half, 256 * w[b] + w[a] of channels a and b: as
 * it is, it gives 256 * S_b + S_a modulo 2^32, and its sign-extended low bytes give S_a, so
 * S_b follows exactly while it stays below 2^23. One LDRD brings four channels of a pair, and
 * 16 multiply-accumulates take 12 instructions. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

es_dsp_run es_dsp_matrix_s8_run;
void es_dsp_matrix_s8_tail(void);
void es_dsp_matrix_s8_floored(void);
void es_dsp_matrix_s8_rounded(void);

const es_dsp_core es_dsp_matrix_s8 = {
    .run = es_dsp_matrix_s8_run,
    .tail = es_dsp_matrix_s8_tail,
    .floored = es_dsp_matrix_s8_floored,
    .rounded = es_dsp_matrix_s8_rounded,
    .step_code = 48,
    .unrolled = 16,
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
    ".macro es_step\n"
    "ldrd r8, r9, [r12], #8\n"
    "ldrd r10, r11, [lr], #8\n"
    "smlad r2, r10, r8, r2\n"
    "smlad r3, r10, r9, r3\n"
    "smlad r6, r11, r8, r6\n"
    "smlad r7, r11, r9, r7\n"
    "sxtb16 r10, r10\n"
    "sxtb16 r11, r11\n"
    "smlad r0, r10, r8, r0\n"
    "smlad r1, r10, r9, r1\n"
    "smlad r4, r11, r8, r4\n"
    "smlad r5, r11, r9, r5\n"
    ".endm\n"
    ".macro es_separate a, b\n"
    "sub \\b, \\b, \\a\n"
    "asr \\b, \\b, #7\n"
    "add \\a, \\a, \\a\n"
    ".endm\n"
    ".macro es_epilogue rounded\n"
    "ldr r12, [sp, #es_table]\n"
    "es_separate r0, r2\n"
    "es_separate r1, r3\n"
    "es_separate r4, r6\n"
    "es_separate r5, r7\n"
    "es_scale r0, r1, 16, \\rounded\n"
    "es_scale r2, r3, 24, \\rounded\n"
    "es_scale r4, r5, 32, \\rounded\n"
    "es_scale r6, r7, 40, \\rounded\n"
    "es_store 32\n"
    ".endm\n"
    ES_ASM_FUNCTION(es_dsp_matrix_s8_run)
    ES_ASM_MATRIX_HEAD("")
    ".balign 4\n"
    "2:\n"
    ".rept 16\n"
    "es_step\n"
    ".endr\n"
    ES_ASM_LABEL(es_dsp_matrix_s8_tail)
    ES_ASM_MATRIX_LOOP
    ES_ASM_LABEL(es_dsp_matrix_s8_floored)
    "es_epilogue 0\n"
    ES_ASM_LABEL(es_dsp_matrix_s8_rounded)
    "es_epilogue 1\n"
    ES_ASM_END(es_dsp_matrix_s8_run)
    ".text\n"
);
/* clang-format on */
