#include "es_matrix_core.h"

#define ES_CODE int8_t
#define ES_CONV_ARGS es_conv_low_s8_args

/* Two channels share a product, one in either half, which does not overflow for that many
 * codes: 128 * (2^bits - 1) * codes < 2^15. */
#define CODES_OF(bits) ((bits) == 4 ? 16 : 80)

#define STEP                                                \
    both += (word & mask) * (uint32_t)(int32_t)*x++;        \
    word >>= bits;

/* Adds the products of a word of 4-bit codes to `both`. */
static inline uint32_t four_codes(const int8_t *x, uint32_t word, uint32_t mask, uint32_t both)
{
#if ES_ARMV6M
    uint32_t pair;
    int32_t code;
#define CODE(k)                     \
    "movs  %[pair], %[word]\n"      \
    "ands  %[pair], %[mask]\n"      \
    "ldrb  %[code], [%[x], #" k "]\n" \
    "sxtb  %[code], %[code]\n"      \
    "muls  %[pair], %[code]\n"      \
    "adds  %[both], %[both], %[pair]\n"
#define NEXT "lsrs  %[word], %[word], #4\n"
    __asm__(".syntax unified\n" CODE("0") NEXT CODE("1") NEXT CODE("2") NEXT CODE("3")
            : [pair] "=&l"(pair), [code] "=&l"(code), [word] "+l"(word), [both] "+l"(both)
            : [x] "l"(x), [mask] "l"(mask), "m"(*(const int8_t(*)[4])x)
            : "cc");
    return both;
#else
    const int32_t bits = 4;
    STEP STEP STEP STEP
    return both;
#endif
}

/* sums[k] = first + x . row k, of codes that are stored unsigned. */
static ES_NOINLINE void dot_pair(const int8_t *x, const uint32_t *words, int32_t count,
                                 int32_t bits, uint32_t first, uint32_t sums[2])
{
    const uint32_t mask = ((1u << bits) - 1u) * 0x10001u;
    uint32_t low = first, high = first;
    while (count > 0) {
        const int8_t *const end = x + es_min(count, CODES_OF(bits));
        count -= CODES_OF(bits);
        uint32_t both = 0, word = 0;
        while (end - x >= 8 && bits == 2) {
            word = *words++;
            STEP STEP STEP STEP STEP STEP STEP STEP
        }
        while (end - x >= 4 && bits == 4) {
            both = four_codes(x, *words++, mask, both);
            x += 4;
        }
        if (x < end) {
            word = *words++;
        }
        while (x < end) {
            STEP
        }
        const int32_t half = (int16_t)both;
        low += (uint32_t)half;
        high += (uint32_t)((int32_t)(both - (uint32_t)half) >> 16);
    }
    sums[0] = low;
    sums[1] = high;
}

static void position(const es_conv_low_s8_args *args, const int8_t *patch, int8_t *out)
{
    const int32_t bits = args->weight_bits;
    const int32_t words = (args->row * bits + 15) >> 4;
    const uint32_t *weights = args->weights;
    int32_t channel = 0;
    for (int32_t g = args->groups; g > 0; --g) {
        int32_t sum = 0;
        for (int32_t i = 0; i < args->row; ++i) {
            sum += patch[i];
        }
        const uint32_t first = 0u - ((uint32_t)sum << (bits - 1));
        for (int32_t left = args->filters; left > 0; left -= ES_STRIP) {
            const int32_t count = es_min(left, ES_STRIP);
            uint32_t sums[ES_STRIP];
            for (int32_t k = 0; k < count; k += 2) {
                dot_pair(patch, weights, args->row, bits, first, sums + k);
                weights += words;
            }
            for (int32_t k = 0; k < count; ++k) {
                sums[k] += (uint32_t)args->bias[channel + k];
            }
            es_finish_s8(&args->tail, channel, count, sums, out + channel);
            channel += count;
        }
        patch += args->row;
    }
}

#include "es_patch.h"

void es_conv_low_s8(const es_conv_low_s8_args *args, const int8_t *in, int8_t *out,
                    int8_t *scratch)
{
    es_convolve(args, in, out, scratch);
}

void es_conv_low_s8_pointwise(const es_conv_low_s8_args *args, const int8_t *in, int8_t *out,
                              int8_t *scratch)
{
    es_convolve_pointwise(args, in, out, scratch);
}

void es_conv_low_s8_fully_connected(const es_conv_low_s8_args *args, const int8_t *in,
                                    int8_t *out)
{
    position(args, in, out);
}
