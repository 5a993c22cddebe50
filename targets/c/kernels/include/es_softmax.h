/* Softmax over rows: exponentials of differences to the row's largest code, over their sum. */
#ifndef ES_SOFTMAX_H
#define ES_SOFTMAX_H

#include <stdint.h>

/* `table[d]` is exp(-d * scale) in Q0.31 for d < `entries`; what is further away is 0 in the
 * output and in the sum. */
typedef struct {
    int32_t rows, depth;
    int32_t entries;
    const int32_t *table;
} es_softmax_s8_args;

void es_softmax_s8(const es_softmax_s8_args *args, const int8_t *in, int8_t *out);

/* Differences are rescaled to the 65,536 steps of [-10, 0]; `exp` and `reciprocal` (of 1 + x
 * over [0, 1]) have 513 entries, interpolated between. */
typedef struct {
    int32_t rows, depth;
    int32_t multiplier, shift;
    const int16_t *exp;
    const int16_t *reciprocal;
} es_softmax_s16_args;

void es_softmax_s16(const es_softmax_s16_args *args, const int16_t *in, int16_t *out);

#endif
