#include "es_common.h"
#include "es_matmul.h"

#define ES_CODE int16_t

/* sum + the products of two pairs of half words. */
static inline int64_t plus_pair(int64_t sum, uint32_t x, uint32_t y)
{
#if ES_DSP
    __asm__("smlald %Q0, %R0, %1, %2" : "+r"(sum) : "r"(x), "r"(y));
    return sum;
#else
    return sum + (int16_t)x * (int16_t)y +
           (int64_t)((int32_t)x >> 16) * ((int32_t)y >> 16);
#endif
}

/* Dot products of a row with two columns. */
static ES_NOINLINE void dots(const uint32_t *x, const uint32_t *y, int32_t y_next, int32_t words,
                             int64_t sums[2])
{
    const uint32_t *const end = x + words, *y1 = y + y_next;
    int64_t sum0 = 0, sum1 = 0;
    while (x != end) {
        const uint32_t a = *x++;
        sum0 = plus_pair(sum0, a, *y++);
        sum1 = plus_pair(sum1, a, *y1++);
    }
    sums[0] = sum0;
    sums[1] = sum1;
}

static void tile(const es_matmul_args *args, const uint32_t *x, const uint32_t *y, int16_t *out,
                 int32_t rows, int32_t columns)
{
    for (int32_t r = 0; r < rows; ++r) {
        int64_t sums[2];
        /* A lone column is computed twice. */
        dots(x, y, (columns - 1) * args->words, args->words, sums);
        for (int32_t c = 0; c < columns; ++c) {
            const int32_t scaled = es_requantize_wide(sums[c], args->multiplier, args->shift);
            out[c] = (int16_t)es_saturate_s16(scaled);
        }
        x += args->words;
        out += args->columns;
    }
}

#include "es_matmul_walk.h"

void es_matmul_s16(const es_matmul_args *args, const int16_t *x, const int16_t *y, int16_t *out,
                   uint32_t *scratch)
{
    es_for_batches(args, x, y, out, scratch);
}
