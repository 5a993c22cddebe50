#include "es_matrix_wide.h"

/* So many products of 17 and 8 bits have a sum of 32. */
#define TAPS 128

#define ES_CODE int16_t
#define ES_DEPTHWISE_ARGS es_depthwise_s16_args

static ES_NOINLINE int32_t some_taps(const int16_t *in, const int8_t *weights, const es_tap *tap,
                                     const es_tap *end, int32_t zero)
{
    int32_t sum = 0;
    for (; tap < end; ++tap) {
        sum += (in[tap->code] - zero) * weights[tap->weight];
    }
    return sum;
}

static void position(const es_depthwise_s16_args *args, const int16_t *in, const int8_t *weights,
                     const es_tap *taps, int32_t count, int16_t *out)
{
    int32_t copies = args->multiplier;
    for (int32_t c = 0; c < args->window.out_channels; ++c) {
        int64_t sum = 0;
        for (int32_t k = 0; k < count; k += TAPS) {
            sum += some_taps(in, weights, taps + k, taps + es_min(count, k + TAPS), args->in_zero);
        }
        es_finish_s16(&args->tail, args->bias, args->narrow, c, 1, &sum, out + c);
        weights += 1;
        if (--copies == 0) {
            in += 1;
            copies = args->multiplier;
        }
    }
}

#include "es_depthwise_walk.h"

void es_depthwise_s16(const es_depthwise_s16_args *args, const int16_t *in, int16_t *out,
                      void *scratch)
{
    es_depthwise(args, in, out, scratch);
}
