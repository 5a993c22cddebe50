#include "es_common.h"
#include "es_gather.h"
#include "es_matrix.h"
#include "es_weights.h"

/* All output channels of one position; padding multiplies nothing, so it needs no memory. */
static void position(const es_depthwise_s8_args *args, const int8_t *in, int32_t y, int32_t x,
                     int8_t *out)
{
    const es_window *w = &args->window;
    const es_tail *tail = &args->tail;
    const int32_t row_bytes = es_row_bytes(w->out_channels, args->weight_bits);
    const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
    const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
    for (int32_t c = 0; c < w->out_channels; ++c) {
        const int8_t *from = in + c / args->multiplier;
        uint32_t sum = (uint32_t)args->bias[c];
        for (int32_t i = ys.first; i < ys.end; ++i) {
            const int32_t line = (y + i * w->dilation_height) * w->in_width + x;
            const int8_t *row = args->weights + i * w->kernel_width * row_bytes;
            for (int32_t j = xs.first; j < xs.end; ++j) {
                const int32_t code = from[(line + j * w->dilation_width) * w->in_channels];
                const int32_t weight = es_weight(row + j * row_bytes, c, args->weight_bits);
                sum += (uint32_t)((code - args->in_zero) * weight);
            }
        }
        const int32_t k = c * tail->per_channel;
        const int32_t scaled = es_requantize((int32_t)sum, tail->multiplier[k], tail->shift[k]);
        out[c] = (int8_t)(es_clamp(scaled, tail->low, tail->high) + tail->zero);
    }
}

void es_depthwise_s8(const es_depthwise_s8_args *args, const int8_t *in, int8_t *out)
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
