/* Products of two pixels and four channels at a time, int8 weights.
 *
 * x: int16 pairs of both pixels in turn, {k0, k2} then {k1, k3} for every four elements, as
 * SXTB16 leaves them. A weight word holds, per half, 256 * w[b] + w[a] of channels a and b: as
 * it is, it gives 256 * S_b + S_a modulo 2^32, and its sign-extended low bytes give S_a, so
 * S_b follows exactly while it stays below 2^23. Two words bring four channels of a pair, and
 * 16 multiply-accumulates take 14 instructions; neighbouring single loads overlap, so they
 * take fewer cycles than two LDRD. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

es_dsp_run es_dsp_matrix_s8_run;
es_dsp_run es_dsp_matrix_s8_run_pairs;
void es_dsp_matrix_s8_tail(void);
void es_dsp_matrix_s8_floored(void);
void es_dsp_matrix_s8_rounded(void);

const es_dsp_core es_dsp_matrix_s8 = {
    .run = es_dsp_matrix_s8_run,
    .tail = es_dsp_matrix_s8_tail,
    .floored = es_dsp_matrix_s8_floored,
    .rounded = es_dsp_matrix_s8_rounded,
    .step_code = 56,
    .unrolled = 16,
    .step_x = 8,
    .word_steps = 2,
    .word_weights = 16,
    .group = 4,
    .group_words = 12,
    .pair = es_dsp_expand_pair,
    .one = es_dsp_expand_one,
    .run_pairs = es_dsp_matrix_s8_run_pairs,
};

/* clang-format off */
__asm__(
    ES_ASM_MATRIX_FRAME
    /* Pairs to come and one, or 0 where the rest of the frame is not there. */
    ".set es_pairs, 32\n"
    ".set es_in, 36\n"
    ".set es_step_bytes, 40\n"
    ".set es_words, 44\n"
    ".set es_count, 48\n"
    ".set es_first_table, 52\n"
    ".set es_weights, 56\n"
    ES_ASM_REQUANTIZE
    ES_ASM_MATRIX_STORE
    ".macro es_step\n"
    "ldr r8, [r12], #4\n"
    "ldr r9, [r12], #4\n"
    "ldr r10, [lr], #4\n"
    "ldr r11, [lr], #4\n"
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
    "es_store\n"
    "ldr r10, [sp, #es_pairs]\n"
    "subs r10, r10, #1\n"
    "bgt 6f\n"
    "beq 5f\n"
    ES_ASM_RETURN(36)
    ".endm\n"
    ES_ASM_FUNCTION(es_dsp_matrix_s8_run_pairs)
    "push {r4-r11, lr}\n"
    "add r3, r0, #36\n"
    "ldm r3, {r5-r8}\n"
    "ldr r4, [r0, #32]\n"
    "ldr r9, [r0, #16]\n"
    "ldr r10, [r0, #24]\n"
    "push {r4-r10}\n"
    "b 4f\n"
    ES_ASM_FUNCTION_START(es_dsp_matrix_s8_run)
    "push {r4-r11, lr}\n"
    "mov r3, #0\n"
    "push {r3}\n"
    "4:\n"
    ES_ASM_MATRIX_ENTER
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
    "5:\n"
    ES_ASM_RETURN(60)
    "6:\n"
    "str r10, [sp, #es_pairs]\n"
    "ldr r0, [sp, #es_x]\n"
    "ldr r1, [sp, #es_in]\n"
    "ldr r4, [sp, #es_step_bytes]\n"
    "ldr r3, [sp, #es_words]\n"
    "ldr r5, [sp, #es_count]\n"
    "ldr r12, [sp, #es_first_table]\n"
    "add r2, r1, r4\n"
    "add r4, r2, r4\n"
    "add r8, r8, r5\n"
    "add r9, r9, r5\n"
    "str r4, [sp, #es_in]\n"
    "str r8, [sp, #es_outputs]\n"
    "str r9, [sp, #(es_outputs + 4)]\n"
    "str r12, [sp, #es_table]\n"
    "bl es_dsp_expand_pair_bare\n"
    "ldr lr, [sp, #es_weights]\n"
    "b 1b\n"
    ES_ASM_END(es_dsp_matrix_s8_run)
    ".text\n"
);
/* clang-format on */
