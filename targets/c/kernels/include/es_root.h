/* 1 / sqrt of 64-bit values. */
#ifndef ES_ROOT_H
#define ES_ROOT_H

#include "es_reciprocal.h"

static inline int32_t es_leading_zeros_64(uint64_t value)
{
    const uint32_t high = (uint32_t)(value >> 32);
    return high ? es_leading_zeros(high) : 32 + es_leading_zeros((uint32_t)value);
}

/* 2^29 / sqrt(m / 2^32) for 2^30 <= m, within 2 units: four Newton-Raphson steps from the
 * nearest line, 2.13 - 1.215 m / 2^32. */
static inline uint32_t es_reciprocal_root(uint32_t m)
{
    const uint32_t start = 1143535043u, slope = 652298158u;
    uint32_t y = start - (uint32_t)(((uint64_t)m * slope) >> 32);
    for (int32_t step = 0; step < 4; ++step) {
        const uint32_t square = (uint32_t)(((uint64_t)y * y) >> 29);
        const uint32_t ratio = (uint32_t)(((uint64_t)m * square) >> 32);
        y = (uint32_t)(((uint64_t)y * (3u * (1u << 29) - ratio)) >> 30);
    }
    return y;
}

/* added + round(a b / 2^32), ties up. */
static inline int32_t es_plus_high(int32_t added, int32_t a, int32_t b)
{
#if ES_DSP
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(added));
    return result;
#else
    return added + (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32);
#endif
}

#endif
