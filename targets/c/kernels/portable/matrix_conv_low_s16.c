#include "es_matrix_wide.h"

/* So many products of 16 and 4 bits have a sum of 32. */
#define CODES 2048

#define ES_CODE int16_t
#define ES_CONV_ARGS es_conv_low_s16_args

#define STEP                                     \
    do {                                         \
        const int32_t code = *x++;               \
        const uint32_t pair = word & mask;       \
        low += code * (int32_t)(pair & 0xFFFFu); \
        high += code * (int32_t)(pair >> 16);    \
        word >>= bits;                           \
    } while (0)

/* sums[k] += x . row k, of codes that are stored unsigned. */
static ES_NOINLINE void dot_pair(const int16_t *x, const uint32_t *words, int32_t count,
                                 int32_t bits, int64_t sums[2])
{
    const uint32_t mask = ((1u << bits) - 1u) * 0x10001u;
    int32_t low = 0, high = 0;
    while (count > 0) {
        uint32_t word = *words++;
        int32_t codes = 16 / 4;
        codes = es_min(count, bits == 4 ? codes : 2 * codes);
        count -= codes;
        for (; codes >= 4; codes -= 4) {
            STEP;
            STEP;
            STEP;
            STEP;
        }
        for (; codes > 0; --codes) {
            STEP;
        }
    }
    sums[0] += low;
    sums[1] += high;
}

static void position(const es_conv_low_s16_args *args, const int16_t *patch, int16_t *out)
{
    const int32_t bits = args->weight_bits;
    const uint32_t *weights = args->weights;
    int32_t channel = 0;
    for (int32_t g = args->groups; g > 0; --g) {
        int64_t first = 0;
        for (int32_t i = 0; i < args->row; ++i) {
            first -= patch[i];
        }
        first *= 1 << (bits - 1);
        for (int32_t left = args->filters; left > 0; left -= 2) {
            const int32_t count = es_min(left, 2);
            int64_t sums[2] = {first, first};
            for (int32_t i = 0; i < args->row; i += CODES) {
                const int32_t codes = es_min(args->row - i, CODES);
                dot_pair(patch + i, weights, codes, bits, sums);
                weights += (codes * bits + 15) >> 4;
            }
            es_finish_s16(&args->tail, args->bias, args->narrow, channel, count, sums,
                          out + channel);
            channel += count;
        }
        patch += args->row;
    }
}

#include "es_patch.h"

void es_conv_low_s16(const es_conv_low_s16_args *args, const int16_t *in, int16_t *out,
                     int16_t *scratch)
{
    es_convolve(args, in, out, scratch);
}

void es_conv_low_s16_pointwise(const es_conv_low_s16_args *args, const int16_t *in, int16_t *out,
                               int16_t *scratch)
{
    es_convolve_pointwise(args, in, out, scratch);
}

void es_conv_low_s16_fully_connected(const es_conv_low_s16_args *args, const int16_t *in,
                                     int16_t *out)
{
    position(args, in, out);
}
