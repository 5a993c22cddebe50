#include "es_matrix_wide.h"

#define ROWS 4 /* output channels that are summed together */
/* So many products of 16 and 8 bits have a sum of 32. */
#define CODES 256

#define ES_CODE int16_t
#define ES_CONV_ARGS es_conv_s16_args

/* sums[k] += x . row k, rows `pitch` codes apart. */
static ES_NOINLINE void dot4(const int16_t *x, const int8_t *row, int32_t pitch, int32_t count,
                             int64_t sums[ROWS])
{
    const int8_t *b = row + pitch, *c = b + pitch, *d = c + pitch;
    int32_t sum_a = 0, sum_b = 0, sum_c = 0, sum_d = 0;
    for (int32_t i = 0; i < count; ++i) {
        const int32_t code = x[i];
        sum_a += code * row[i];
        sum_b += code * b[i];
        sum_c += code * c[i];
        sum_d += code * d[i];
    }
    sums[0] += sum_a;
    sums[1] += sum_b;
    sums[2] += sum_c;
    sums[3] += sum_d;
}

static void position(const es_conv_s16_args *args, const int16_t *patch, int16_t *out)
{
    /* The last rows may be computed twice; where there are too few, one is, four times. */
    const int32_t count = args->filters < ROWS ? 1 : ROWS;
    const int32_t pitch = args->filters < ROWS ? 0 : args->row;
    const int8_t *weights = args->weights;
    int32_t channel = 0;
    for (int32_t g = args->groups; g > 0; --g) {
        const int32_t last = channel + args->filters - count;
        for (;;) {
            int64_t sums[ROWS] = {0, 0, 0, 0};
            for (int32_t i = 0; i < args->row; i += CODES) {
                dot4(patch + i, weights + i, pitch, es_min(args->row - i, CODES), sums);
            }
            es_finish_s16(&args->tail, args->bias, args->narrow, channel, count, sums,
                          out + channel);
            if (channel == last) {
                break;
            }
            const int32_t step = es_min(count, last - channel);
            weights += step * args->row;
            channel += step;
        }
        weights += count * args->row;
        channel += count;
        patch += args->row;
    }
}

#include "es_patch.h"

void es_conv_s16(const es_conv_s16_args *args, const int16_t *in, int16_t *out, int16_t *scratch)
{
    es_convolve(args, in, out, scratch);
}

void es_conv_s16_pointwise(const es_conv_s16_args *args, const int16_t *in, int16_t *out,
                           int16_t *scratch)
{
    es_convolve_pointwise(args, in, out, scratch);
}

void es_conv_s16_fully_connected(const es_conv_s16_args *args, const int16_t *in, int16_t *out)
{
    position(args, in, out);
}
