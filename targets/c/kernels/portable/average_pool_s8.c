#include "es_pool.h"
#include "es_sum.h"

#define ES_CODE int8_t

/* sum / count, rounded half away from zero. */
static ES_NOINLINE int8_t mean(const es_pool_args *args, int32_t sum, int32_t count)
{
    const int32_t half = count / 2;
    return (int8_t)es_clamp((sum > 0 ? sum + half : sum - half) / count, args->low, args->high);
}

static ES_NOINLINE void window(const es_pool_args *args, const int8_t *in, int32_t rows,
                               int32_t columns, int8_t *out)
{
    const int32_t channels = args->channels, count = rows * columns;
    const int32_t line = (args->in_width - columns) * channels;
    int32_t c = 0;
#if ES_DSP
    for (; count <= ES_SUM_LIMIT && c + 4 <= channels; c += 4) {
        es_sums sums = {0, 0};
        const int8_t *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                sums = es_plus_word(sums, es_load_word(x));
                x += channels;
            }
            x += line;
        }
        int32_t sum[4];
        es_unpack_sums(sums, sum);
        for (int32_t k = 0; k < 4; ++k) {
            out[c + k] = mean(args, sum[k], count);
        }
    }
#endif
    for (; c < channels; ++c) {
        int32_t sum = 0;
        const int8_t *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                sum += *x;
                x += channels;
            }
            x += line;
        }
        out[c] = mean(args, sum, count);
    }
}

#include "es_window_walk.h"

void es_average_pool_s8(const es_pool_args *args, const int8_t *in, int8_t *out)
{
    es_for_windows(args, in, out);
}
