/* Runs of bytes of two windows, joined by whole words. */
#include "es_dsp_asm.h"
#include "es_dsp_core.h"

/* clang-format off */
__asm__(
    ES_ASM_FUNCTION(es_dsp_join)
    "push {r4-r11, lr}\n"
    "ldm r0, {r4-r8}\n"
    "add r8, r8, r1\n"
    "1:\n"
    "ldr r9, [r4], #4\n"
    "mov r0, r7\n"
    "mov r11, r1\n"
    "mov r12, r8\n"
    "add r10, r9, r3\n"
    "add r9, r9, r2\n"
    "2:\n"
    "ldr lr, [r9], #4\n"
    "str lr, [r11], #4\n"
    "ldr lr, [r10], #4\n"
    "subs r0, r0, #1\n"
    "str lr, [r12], #4\n"
    "bne 2b\n"
    "add r1, r1, r6\n"
    "add r8, r8, r6\n"
    "subs r5, r5, #1\n"
    "bne 1b\n"
    "pop {r4-r11, pc}\n"
    ES_ASM_END(es_dsp_join)
    ".text\n"
);
/* clang-format on */
