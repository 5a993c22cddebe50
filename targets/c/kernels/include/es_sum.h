/* Sums of four adjacent channels over many positions, two in each word. */
#ifndef ES_SUM_H
#define ES_SUM_H

#include "es_common.h"

#if ES_DSP
/* Positions whose int8 codes cannot overflow a half word. */
#define ES_SUM_LIMIT 256

/* Sums of channels 0 and 2, and of 1 and 3, as half words. */
typedef struct {
    uint32_t even, odd;
} es_sums;

static inline es_sums es_plus_word(es_sums sums, uint32_t word)
{
    uint32_t even, odd;
    __asm__("sxtab16 %0, %1, %2" : "=r"(even) : "r"(sums.even), "r"(word));
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(odd) : "r"(sums.odd), "r"(word));
    return (es_sums){even, odd};
}

static inline void es_unpack_sums(es_sums sums, int32_t sum[4])
{
    sum[0] = (int16_t)sums.even;
    sum[1] = (int16_t)sums.odd;
    sum[2] = (int32_t)sums.even >> 16;
    sum[3] = (int32_t)sums.odd >> 16;
}
#endif

#endif
