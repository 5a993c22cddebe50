/* One channel of an image into a plane of 16-bit codes.
 *
 * Per row: zero to three single elements, then four at a time in a loop of sixteen. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

/* clang-format off */
__asm__(
    ES_ASM_FUNCTION(es_dsp_gather)
    "push {r4-r11, lr}\n"
    "ldm r0, {r0, r2, r3, r4, r5, r6, r7, r12}\n"
    "1:\n"
    "mov r8, r5\n"
    "bx r6\n"
    ".balign 4\n"
    ".rept 3\n"
    "ldrsb.w r9, [r1]\n"
    "add.w r1, r1, r2\n"
    "strh r9, [r0], #2\n"
    ".endr\n"
    ES_ASM_LABEL(es_dsp_gather_singles)
    "bx r7\n"
    ".balign 4\n"
    "2:\n"
    ".rept 4\n"
    "ldrsb.w r9, [r1]\n"
    "ldrsb.w r10, [r1, r2]\n"
    "ldrsb.w r11, [r1, r2, lsl #1]\n"
    "ldrsb.w lr, [r1, r3]\n"
    "add.w r1, r1, r2, lsl #2\n"
    "strh r9, [r0], #2\n"
    "strh r10, [r0], #2\n"
    "strh r11, [r0], #2\n"
    "strh lr, [r0], #2\n"
    ".endr\n"
    ES_ASM_LABEL(es_dsp_gather_fours)
    "subs r8, r8, #1\n"
    "bne 2b\n"
    ES_ASM_LABEL(es_dsp_gather_row)
    "add r0, r0, r4\n"
    "subs r12, r12, #1\n"
    "bne 1b\n"
    "pop {r4-r11, pc}\n"
    ES_ASM_END(es_dsp_gather)
    ".text\n"
);
/* clang-format on */
