/* int8 activations to int16 pairs, in the order that SXTB16 gives: {k0, k2}, then {k1, k3}.
 *
 * Addresses need no alignment. Pairs of two pixels stand in turn; `es_dsp_expand_one` writes
 * one pixel's and steps over the other's. For assembly there is `es_dsp_expand_pair_bare`, which
 * keeps r12 only. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

/* clang-format off */
__asm__(
    ".macro es_widen p, q, r, s\n"
    "sxtb16 \\r, \\p, ror #8\n"
    "sxtb16 \\s, \\q, ror #8\n"
    "sxtb16 \\p, \\p\n"
    "sxtb16 \\q, \\q\n"
    ".endm\n"
    ES_ASM_FUNCTION(es_dsp_expand_pair)
    "push {r4-r11, lr}\n"
    "bl es_dsp_expand_pair_bare\n"
    "pop {r4-r11, pc}\n"
    ES_ASM_LABEL(es_dsp_expand_pair_bare)
    "lsrs r3, r3, #1\n"
    "bcc 1f\n"
    "ldr r4, [r1], #4\n"
    "ldr r5, [r2], #4\n"
    "es_widen r4, r5, r6, r7\n"
    "stm r0!, {r4-r7}\n"
    "cbz r3, 2f\n"
    "1:\n"
    "ldr r4, [r1], #4\n"
    "ldr r8, [r1], #4\n"
    "ldr r5, [r2], #4\n"
    "ldr r9, [r2], #4\n"
    "es_widen r4, r5, r6, r7\n"
    "es_widen r8, r9, r10, r11\n"
    "subs r3, r3, #1\n"
    "stm r0!, {r4-r11}\n"
    "bne 1b\n"
    "2:\n"
    "bx lr\n"
    ES_ASM_END(es_dsp_expand_pair)
    ES_ASM_FUNCTION(es_dsp_expand_one)
    "1:\n"
    "ldr r2, [r1], #4\n"
    "sxtb16 r12, r2\n"
    "sxtb16 r2, r2, ror #8\n"
    "str r12, [r0], #8\n"
    "str r2, [r0], #8\n"
    "subs r3, r3, #1\n"
    "bne 1b\n"
    "bx lr\n"
    ES_ASM_END(es_dsp_expand_one)
    ".text\n"
);
/* clang-format on */
