#include "es_common.h"
#include "es_gather.h"
#include "es_matrix.h"
#include "es_weights.h"

static int16_t finish(const es_depthwise_s16_args *args, int64_t sum, int32_t channel)
{
    const es_tail *tail = &args->tail;
    const int32_t k = channel * tail->per_channel;
    const int32_t scaled =
        args->narrow ? es_requantize((int32_t)(uint64_t)sum, tail->multiplier[k], tail->shift[k])
                     : es_requantize_wide(sum, tail->multiplier[k], tail->shift[k]);
    return (int16_t)(es_clamp(scaled, tail->low, tail->high) + tail->zero);
}

static void position(const es_depthwise_s16_args *args, const int16_t *in, int32_t y, int32_t x,
                     int16_t *out)
{
    const es_window *w = &args->window;
    const int32_t row_bytes = es_row_bytes(w->out_channels, args->weight_bits);
    const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
    const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
    for (int32_t c = 0; c < w->out_channels; ++c) {
        const int16_t *from = in + c / args->multiplier;
        int64_t sum = args->bias[c];
        for (int32_t i = ys.first; i < ys.end; ++i) {
            const int32_t line = (y + i * w->dilation_height) * w->in_width + x;
            const int8_t *row = args->weights + i * w->kernel_width * row_bytes;
            for (int32_t j = xs.first; j < xs.end; ++j) {
                const int32_t code = from[(line + j * w->dilation_width) * w->in_channels];
                sum += (code - args->in_zero) * es_weight(row + j * row_bytes, c, args->weight_bits);
            }
        }
        out[c] = finish(args, sum, c);
    }
}

void es_depthwise_s16(const es_depthwise_s16_args *args, const int16_t *in, int16_t *out)
{
    const es_window *w = &args->window;
    for (int32_t n = 0; n < w->batch; ++n) {
        for (int32_t oy = 0; oy < w->out_height; ++oy) {
            for (int32_t ox = 0; ox < w->out_width; ++ox) {
                position(args, in, oy * w->stride_height - w->pad_top,
                         ox * w->stride_width - w->pad_left, out);
                out += w->out_channels;
            }
        }
        in += w->in_height * w->in_width * w->in_channels;
    }
}
