/* What the matrix kernels for 8-bit activations share.
 *
 * Compilers for Armv6-M keep half of an inner loop's values in the wrong half of the registers,
 * so where ES_ARMV6M is 1 the busiest loops are written out. They save the low registers that they
 * need, of which a frame pointer may be one. */
#ifndef ES_MATRIX_CORE_H
#define ES_MATRIX_CORE_H

#include "es_common.h"
#include "es_matrix.h"

#define ES_STRIP 32 /* channels that are summed before their codes are made */

#if ES_SHORT_MULTIPLY && defined(__GNUC__)
#define ES_ARMV6M 1
#else
#define ES_ARMV6M 0
#endif

/* Output codes of `count` >= 1 channels from `channel` on, from their sums. */
static ES_NOINLINE void es_finish_s8(const es_tail *tail, int32_t channel, int32_t count,
                                     const uint32_t *sums, int8_t *out)
{
    const int32_t per_channel = tail->per_channel;
    const int32_t first = per_channel == 0 ? 0 : channel;
#if ES_ARMV6M
    register const int8_t *shift __asm__("r0") = tail->shift + first;
    register const uint32_t *from __asm__("r1") = sums;
    register int32_t step __asm__("r2") = per_channel;
    register int32_t low __asm__("r8") = tail->low;
    register int32_t high __asm__("r9") = tail->high;
    register int32_t zero __asm__("r10") = tail->zero;
    register const int32_t *multiplier __asm__("r11") = tail->multiplier + first;
    register int8_t *to __asm__("r12") = out;
    register const uint32_t *end __asm__("lr") = sums + count;
    __asm__ volatile(".syntax unified\n"
                     "push  {r2, r3, r4, r5, r6, r7}\n"
                     "1:\n"
                     "ldmia r1!, {r2}\n"
                     "mov   r3, r11\n"
                     "ldr   r3, [r3]\n"
                     "movs  r6, #0\n"
                     "ldrsb r7, [r0, r6]\n"
                     "ldr   r6, [sp]\n"
                     "adds  r0, r0, r6\n"
                     "lsls  r6, r6, #2\n"
                     "add   r11, r6\n"
                     "cmp   r7, #0\n"
                     "ble   2f\n"
                     "lsls  r2, r2, r7\n"
                     "2:\n" /* es_high_mul */
                     "uxth  r4, r2\n"
                     "uxth  r5, r3\n"
                     "asrs  r2, r2, #16\n"
                     "asrs  r3, r3, #16\n"
                     "movs  r6, r4\n"
                     "muls  r6, r5, r6\n"
                     "lsrs  r6, r6, #16\n"
                     "muls  r5, r2, r5\n"
                     "adds  r6, r6, r5\n"
                     "muls  r4, r3, r4\n"
                     "muls  r2, r3, r2\n"
                     "asrs  r3, r6, #16\n"
                     "adds  r2, r2, r3\n"
                     "uxth  r6, r6\n"
                     "adds  r4, r4, r6\n"
                     "lsrs  r4, r4, #14\n"
                     "adds  r4, r4, #1\n"
                     "lsrs  r4, r4, #1\n"
                     "lsls  r2, r2, #1\n"
                     "adds  r2, r2, r4\n"
                     "mvns  r7, r7\n" /* -shift - 1 */
                     "bmi   3f\n"
                     "asrs  r3, r2, #31\n"
                     "adds  r2, r2, r3\n"
                     "asrs  r2, r2, r7\n"
                     "adds  r2, r2, #1\n"
                     "asrs  r2, r2, #1\n"
                     "3:\n"
                     "cmp   r2, r8\n"
                     "bge   4f\n"
                     "mov   r2, r8\n"
                     "4:\n"
                     "cmp   r2, r9\n"
                     "ble   5f\n"
                     "mov   r2, r9\n"
                     "5:\n"
                     "add   r2, r10\n"
                     "mov   r7, r12\n"
                     "strb  r2, [r7]\n"
                     "adds  r7, r7, #1\n"
                     "mov   r12, r7\n"
                     "cmp   r1, lr\n"
                     "bne   1b\n"
                     "pop   {r2, r3, r4, r5, r6, r7}\n"
                     : "+r"(shift), "+r"(from), "+r"(multiplier), "+r"(to)
                     : "r"(step), "r"(low), "r"(high), "r"(zero), "r"(end)
                     : "cc", "memory");
#else
    const int32_t *multiplier = tail->multiplier + first;
    const int8_t *shift = tail->shift + first;
    for (int32_t k = 0; k < count; ++k) {
        const int32_t scaled = es_requantize((int32_t)sums[k], *multiplier, *shift);
        out[k] = (int8_t)(es_clamp(scaled, tail->low, tail->high) + tail->zero);
        multiplier += per_channel;
        shift += per_channel;
    }
#endif
}

#endif
