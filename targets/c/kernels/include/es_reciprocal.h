/* Fixed-point reciprocals. A Qm.n value has m integer and n = 31 - m fraction bits. */
#ifndef ES_RECIPROCAL_H
#define ES_RECIPROCAL_H

#include "es_common.h"

/* Leading zero bits of a positive value. */
static inline int32_t es_leading_zeros(uint32_t value)
{
#if defined(__GNUC__)
    return __builtin_clz(value);
#else
    int32_t zeros = 0;
    while (!(value >> 31)) {
        value <<= 1;
        ++zeros;
    }
    return zeros;
#endif
}

/* 1 / (1 + x) in Q0.31 for x in [0, 1) in Q0.31: three Newton-Raphson steps from
 * 48/17 - 32/17 d, where d = (1 + x) / 2 (gemmlowp one_over_one_plus_x_for_x_in_0_1).
 * Errors stay below 2^25, so that nothing saturates but the result. */
static inline int32_t es_one_over_one_plus(uint32_t x)
{
    const int32_t half = (int32_t)((x + 0x80000000u) >> 1);
    int32_t guess = 1515870810 + es_high_mul_normal(-1010580540, half);
    for (int32_t step = 0; step < 3; ++step) {
        const int32_t error = (1 << 29) - es_high_mul_normal(guess, half);
        guess += es_high_mul(error, guess) * 4;
    }
    return es_min(guess, INT32_MAX / 2) * 2 + (guess >> 30);
}

#endif
