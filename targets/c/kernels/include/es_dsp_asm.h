/* Assembly that the matrix kernels share: frame, bias, requantization and stores.
 *
 * Two pixels times four channels: r0/r1 hold channel 0 of both pixels, r2/r3 channel 1, and so
 * on; r8..r11 are free outside the products, r12 is the input or table pointer and lr runs
 * through the weights. The stack frame: */
#ifndef ES_DSP_ASM_H
#define ES_DSP_ASM_H

#define ES_ASM_MATRIX_FRAME               \
    ".set es_x, 0\n"                      \
    ".set es_entry, 4\n"                  \
    ".set es_x_end, 8\n"                  \
    ".set es_epilogue, 12\n"              \
    ".set es_outputs, 16\n"               \
    ".set es_table, 24\n"                 \
    ".set es_table_end, 28\n"

#define ES_ASM_FUNCTION(name)             \
    ".section .text." #name ",\"ax\",%progbits\n" \
    ".balign 4\n"                         \
    ".syntax unified\n"                   \
    ".thumb\n"                            \
    ".global " #name "\n"                 \
    ".thumb_func\n"                       \
    ".type " #name ", %function\n"        \
    #name ":\n"

/* A second function in the section of the first. */
#define ES_ASM_FUNCTION_START(name)       \
    ".balign 4\n"                         \
    ES_ASM_LABEL(name)

#define ES_ASM_LABEL(name)                \
    ".global " #name "\n"                 \
    ".thumb_func\n"                       \
    ".type " #name ", %function\n"        \
    #name ":\n"

/* Entry, what the kernel adds to the frame, biases of a group of channels, and the jump into
 * the steps. */
#define ES_ASM_MATRIX_HEAD(more)          \
    "push {r4-r11, lr}\n"                 \
    more                                  \
    ES_ASM_MATRIX_ENTER

#define ES_ASM_MATRIX_ENTER               \
    "ldm r0, {r3, r4, r5, r6, r9, r10, lr}\n" \
    "mov r7, r1\n"                        \
    "mov r8, r2\n"                        \
    "mov r12, r9\n"                       \
    "push {r3-r10}\n"                     \
    "1:\n"                                \
    "ldm r12, {r0, r2, r4, r6}\n"         \
    "mov r1, r0\n"                        \
    "mov r3, r2\n"                        \
    "mov r5, r4\n"                        \
    "mov r7, r6\n"                        \
    "ldm sp, {r12, pc}\n"

/* After the steps: again, or to the epilogue that the frame names. */
#define ES_ASM_MATRIX_LOOP                \
    "ldr r8, [sp, #es_x_end]\n"           \
    "cmp r12, r8\n"                       \
    "bne 2b\n"                            \
    "ldr pc, [sp, #es_epilogue]\n"

/* Doubled sums become codes.
 *
 * SMMLAR adds the rounded high half of sum * multiplier to c. A tie falls upwards at the last
 * shift; below zero it must fall downwards, which shows only where the clamp leaves room
 * under the zero point: there the sum's sign lowers it by one. */
#define ES_ASM_REQUANTIZE                 \
    ".macro es_scale_one p, rounded\n"    \
    ".if \\rounded\n"                     \
    "smmlar r11, \\p, r8, r10\n"          \
    "add \\p, r11, \\p, asr #31\n"        \
    ".else\n"                             \
    "smmlar \\p, \\p, r8, r10\n"          \
    ".endif\n"                            \
    "asr \\p, \\p, r9\n"                  \
    "ssat \\p, #8, \\p\n"                 \
    ".endm\n"                             \
    ".macro es_scale p, q, offset, rounded\n" \
    "ldrd r8, r9, [r12, #\\offset]\n"     \
    "asr r10, r9, #8\n"                   \
    "es_scale_one \\p, \\rounded\n"       \
    "es_scale_one \\q, \\rounded\n"       \
    ".endm\n"                             \
    ".macro es_scale_row rounded\n"       \
    ".irp p, 0, 1, 2, 3, 4, 5, 6, 7\n"    \
    "ldrd r8, r9, [r12, #(32 + 8 * \\p)]\n" \
    "asr r10, r9, #8\n"                   \
    "es_scale_one r\\p, \\rounded\n"      \
    ".endr\n"                             \
    ".endm\n"

/* Codes of both pixels to memory, the second pixel first: of a lone pixel, the first counts. */
#define ES_ASM_MATRIX_STORE               \
    ".macro es_store\n"                   \
    "ldr r8, [sp, #es_outputs]\n"         \
    "ldr r9, [sp, #(es_outputs + 4)]\n"   \
    "strb r1, [r9], #1\n"                 \
    "strb r3, [r9], #1\n"                 \
    "strb r5, [r9], #1\n"                 \
    "strb r7, [r9], #1\n"                 \
    "strb r0, [r8], #1\n"                 \
    "strb r2, [r8], #1\n"                 \
    "strb r4, [r8], #1\n"                 \
    "strb r6, [r8], #1\n"                 \
    "ldr r10, [sp, #es_table_end]\n"      \
    "add r12, r12, #48\n"                 \
    "str r8, [sp, #es_outputs]\n"         \
    "str r9, [sp, #(es_outputs + 4)]\n"   \
    "str r12, [sp, #es_table]\n"          \
    "cmp r12, r10\n"                      \
    "bne 1b\n"                            \
    ".endm\n"

#define ES_ASM_RETURN(frame)              \
    "add sp, sp, #" #frame "\n"           \
    "pop {r4-r11, pc}\n"

/* The same for one row of activations and eight channels, r0..r7. */
#define ES_ASM_ROW_FRAME                  \
    ".set es_x, 0\n"                      \
    ".set es_entry, 4\n"                  \
    ".set es_x_end, 8\n"                  \
    ".set es_epilogue, 12\n"              \
    ".set es_output, 16\n"                \
    ".set es_table, 20\n"                 \
    ".set es_table_end, 24\n"

#define ES_ASM_ROW_HEAD(more)             \
    "push {r4-r11, lr}\n"                 \
    "ldm r0, {r3, r4, r5, r6, r8, r9, lr}\n" \
    "mov r7, r1\n"                        \
    more                                  \
    "mov r12, r8\n"                       \
    "push {r3-r9}\n"                      \
    "1:\n"                                \
    "ldm r12, {r0-r7}\n"                  \
    "ldm sp, {r12, pc}\n"

#define ES_ASM_ROW_LOOP                   \
    "ldr r8, [sp, #es_x_end]\n"           \
    "cmp r12, r8\n"                       \
    "bne 2b\n"                            \
    "ldr pc, [sp, #es_epilogue]\n"

#define ES_ASM_ROW_STORE                  \
    ".macro es_store_row frame\n"         \
    "ldr r8, [sp, #es_output]\n"          \
    "ldr r9, [sp, #es_table_end]\n"       \
    ".irp p, 0, 1, 2, 3, 4, 5, 6, 7\n"    \
    "strb r\\p, [r8], #1\n"              \
    ".endr\n"                             \
    "add r12, r12, #96\n"                 \
    "str r8, [sp, #es_output]\n"          \
    "str r12, [sp, #es_table]\n"          \
    "cmp r12, r9\n"                       \
    "bne 1b\n"                            \
    "add sp, sp, #\\frame\n"              \
    "pop {r4-r11, pc}\n"                  \
    ".endm\n"

#define ES_ASM_END(name) ".size " #name ", . - " #name "\n"

#endif
