/* Requantization of four sums and copies, in MVE instructions. */
#ifndef ES_MVE_CORE_H
#define ES_MVE_CORE_H

#include <arm_mve.h>
#include <stdint.h>

#include "es_mve.h"

/* Sums to codes less the zero point, before the clamp: round(sum * multiplier / 2^31), ties up,
 * which VQRDMULH is (its saturation needs a negative multiplier), then the right shift. A negative
 * tie must fall away from zero where VRSHL rounds it up: one is taken off before. */
static inline int32x4_t es_mve_requantize(int32x4_t sums, int32x4_t multiplier, int32x4_t shift,
                                          int32_t ties)
{
    if (ties == ES_MVE_MIXED) {
        const int32x4_t none = vdupq_n_s32(0);
        const int32x4_t right = vminq_s32(shift, none);
        const int32x4_t high =
            vqrdmulhq_s32(vshlq_s32(sums, vmaxq_s32(shift, none)), multiplier);
        const int32x4_t negative = vshrq_n_s32(vandq_s32(high, right), 31);
        return vrshlq_s32(vaddq_s32(high, negative), right);
    }
    int32x4_t high = vqrdmulhq_s32(sums, multiplier);
    if (ties == ES_MVE_AWAY) {
        high = vaddq_s32(high, vshrq_n_s32(high, 31));
    }
    return vrshlq_s32(high, shift);
}

/* Output codes in 32-bit lanes. */
static inline int32x4_t es_mve_codes(const es_mve_tail *tail, const int32_t *record,
                                     int32x4_t sums)
{
    const int32x4_t scaled =
        es_mve_requantize(sums, vldrwq_s32(record + 4),
                          vldrbq_s32((const int8_t *)(record + 8)), tail->ties);
    const int32x4_t codes = vaddq_n_s32(scaled, tail->zero);
    return vminq_s32(vmaxq_s32(codes, vdupq_n_s32(tail->low)), vdupq_n_s32(tail->high));
}

/* Words of the record of a group of four channels. */
#define ES_MVE_RECORD 9

/* The first `count` lanes as bytes. */
static inline void es_mve_store_few(int32x4_t codes, int32_t count, int8_t *out)
{
    int32_t lanes[4];
    vstrwq_s32(lanes, codes);
    for (int32_t c = 0; c < count; ++c) {
        out[c] = (int8_t)lanes[c];
    }
}

static inline void es_mve_copy(int8_t *to, const int8_t *from, int32_t count)
{
    __asm volatile("    wlstp.8 lr, %[count], 2f\n"
                   "1:  vldrb.8 q0, [%[from]], #16\n"
                   "    vstrb.8 q0, [%[to]], #16\n"
                   "    letp    lr, 1b\n"
                   "2:\n"
                   : [to] "+r"(to), [from] "+r"(from)
                   : [count] "r"(count)
                   : "q0", "lr", "memory");
}

static inline void es_mve_fill(int8_t *to, int32_t code, int32_t count)
{
    __asm volatile("    vdup.8  q0, %[code]\n"
                   "    wlstp.8 lr, %[count], 2f\n"
                   "1:  vstrb.8 q0, [%[to]], #16\n"
                   "    letp    lr, 1b\n"
                   "2:\n"
                   : [to] "+r"(to)
                   : [count] "r"(count), [code] "r"(code)
                   : "q0", "lr", "memory");
}

#endif
