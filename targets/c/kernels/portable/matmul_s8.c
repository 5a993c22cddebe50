#include "es_common.h"
#include "es_matmul.h"

#define ES_CODE int8_t

/* sum + the products of two pairs of half words. */
static inline int32_t plus_pair(int32_t sum, uint32_t x, uint32_t y)
{
#if ES_DSP
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(x), "r"(y));
    return sum;
#else
    return sum + (int16_t)x * (int16_t)y + ((int32_t)x >> 16) * ((int32_t)y >> 16);
#endif
}

/* Dot products of two rows, `x_next` words apart, with two columns. */
static ES_NOINLINE void dots(const uint32_t *x, int32_t x_next, const uint32_t *y,
                             int32_t y_next, int32_t words, int32_t sums[4])
{
    const uint32_t *const end = x + words, *x1 = x + x_next, *y1 = y + y_next;
    int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
    while (x != end) {
        uint32_t a = *x++, b = *x1++, c = *y++, d = *y1++;
        sum0 = plus_pair(sum0, a, c);
        sum1 = plus_pair(sum1, a, d);
        sum2 = plus_pair(sum2, b, c);
        sum3 = plus_pair(sum3, b, d);
        a = *x++, b = *x1++, c = *y++, d = *y1++;
        sum0 = plus_pair(sum0, a, c);
        sum1 = plus_pair(sum1, a, d);
        sum2 = plus_pair(sum2, b, c);
        sum3 = plus_pair(sum3, b, d);
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}

static void tile(const es_matmul_args *args, const uint32_t *x, const uint32_t *y, int8_t *out,
                 int32_t rows, int32_t columns)
{
    const int32_t words = args->words, zero = args->zero;
    const int32_t multiplier = args->multiplier, shift = args->shift;
    int8_t *const below = out + (rows - 1) * args->columns;
    int32_t sums[4];
    /* A lone row or column is computed twice. */
    dots(x, (rows - 1) * words, y, (columns - 1) * words, words, sums);
    out[0] = es_code_s8(es_requantize(sums[0], multiplier, shift), zero);
    out[columns - 1] = es_code_s8(es_requantize(sums[1], multiplier, shift), zero);
    below[0] = es_code_s8(es_requantize(sums[2], multiplier, shift), zero);
    below[columns - 1] = es_code_s8(es_requantize(sums[3], multiplier, shift), zero);
}

#include "es_matmul_walk.h"

void es_matmul_s8(const es_matmul_args *args, const int8_t *x, const int8_t *y, int8_t *out,
                  uint32_t *scratch)
{
    es_for_batches(args, x, y, out, scratch);
}
