/* Doubled sums of one channel to codes, as ES_ASM_REQUANTIZE says: single ones, then fours.
 *
 * r0: sums; r1: output, after the last one on return; r2, r3: one and three times the bytes
 * from an output to the next; r4: multiplier; r5: rounding; r6: centre; r7: bytes of sums. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

/* clang-format off */
__asm__(
    ".macro es_code p, rounded\n"
    ".if \\rounded\n"
    "smmlar r12, \\p, r4, r6\n"
    "add \\p, r12, \\p, asr #31\n"
    ".else\n"
    "smmlar \\p, \\p, r4, r6\n"
    ".endif\n"
    "asr \\p, \\p, r5\n"
    "ssat \\p, #8, \\p\n"
    ".endm\n"
    ".macro es_codes rounded\n"
    "ands r8, r7, #12\n"
    "beq 2f\n"
    "1:\n"
    "ldr r9, [r0], #4\n"
    "es_code r9, \\rounded\n"
    "strb r9, [r1]\n"
    "add r1, r1, r2\n"
    "subs r8, r8, #4\n"
    "bne 1b\n"
    "2:\n"
    "lsrs r7, r7, #4\n"
    "beq 4f\n"
    "3:\n"
    "ldm r0!, {r8-r11}\n"
    "es_code r8, \\rounded\n"
    "es_code r9, \\rounded\n"
    "es_code r10, \\rounded\n"
    "es_code r11, \\rounded\n"
    "subs r7, r7, #1\n"
    "strb r8, [r1]\n"
    "strb r9, [r1, r2]\n"
    "strb r10, [r1, r2, lsl #1]\n"
    "strb r11, [r1, r3]\n"
    "add r1, r1, r2, lsl #2\n"
    "bne 3b\n"
    "4:\n"
    "bx lr\n"
    ".endm\n"
    ES_ASM_FUNCTION(es_dsp_codes_floored)
    "es_codes 0\n"
    ES_ASM_END(es_dsp_codes_floored)
);
__asm__(
    ES_ASM_FUNCTION(es_dsp_codes_rounded)
    "es_codes 1\n"
    ES_ASM_END(es_dsp_codes_rounded)
    ".text\n"
);
/* clang-format on */
