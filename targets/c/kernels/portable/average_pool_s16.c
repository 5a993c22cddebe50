#include "es_common.h"
#include "es_pool.h"

#define ES_CODE int16_t

static ES_NOINLINE void window(const es_pool_args *args, const int16_t *in, int32_t rows,
                               int32_t columns, int16_t *out)
{
    const int32_t channels = args->channels, count = rows * columns, half = count / 2;
    for (int32_t c = 0; c < channels; ++c) {
        int32_t sum = 0;
        const int16_t *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                sum += *x;
                x += channels;
            }
            x += (args->in_width - columns) * channels;
        }
        /* Rounded half away from zero. */
        sum = (sum > 0 ? sum + half : sum - half) / count;
        out[c] = (int16_t)es_clamp(sum, args->low, args->high);
    }
}

#include "es_window_walk.h"

void es_average_pool_s16(const es_pool_args *args, const int16_t *in, int16_t *out)
{
    es_for_windows(args, in, out);
}
