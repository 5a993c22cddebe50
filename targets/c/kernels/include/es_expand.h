/* Weights that lie in flash without their zeros, made again in RAM right before their kernel runs.
 *
 * Stored are words of presence, a bit for each unit, the highest for the first one, and behind
 * them the units that are present, the lowest bits first. */
#ifndef ES_EXPAND_H
#define ES_EXPAND_H

#include <stdint.h>

#define ES_EXPAND_UNITS 32 /* in a block, as a word has bits */

/* A word of units becomes one of weights by `blank`, as the functions say. */
typedef struct {
    const uint32_t *stored;
    int32_t blocks;
    uint32_t blank;
} es_expand_args;

/* Units are bytes; each half h of a word becomes (h ^ b) - b with the half b of `blank`. With
 * 0x0080 two codes of 8 bits, beside each other, become the one 256 times the upper plus the
 * lower; with 0 all stays. */
void es_expand_s8(const es_expand_args *args, uint32_t *to);

/* Units are four bits; words of them are combined with `blank` by exclusive or. */
void es_expand_s4(const es_expand_args *args, uint32_t *to);

/* How many bits above the highest one that is set are not; `bits` is not 0. */
static inline int32_t es_leading_zeros(uint32_t bits)
{
#if defined(__GNUC__) && !defined(__ARM_ARCH_6M__) && !defined(__ARM_ARCH_8M_BASE__)
    return __builtin_clz(bits);
#else
    int32_t count = 0;
    for (; bits < 0x80000000u; bits <<= 1) {
        ++count;
    }
    return count;
#endif
}

#endif
