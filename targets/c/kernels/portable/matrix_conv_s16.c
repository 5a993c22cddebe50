#include "es_common.h"
#include "es_gather.h"
#include "es_matrix.h"
#include "es_weights.h"

static int16_t finish(const es_conv_s16_args *args, int64_t sum, int32_t channel)
{
    const es_tail *tail = &args->tail;
    const int32_t k = channel * tail->per_channel;
    const int32_t scaled =
        args->narrow ? es_requantize((int32_t)(uint64_t)sum, tail->multiplier[k], tail->shift[k])
                     : es_requantize_wide(sum, tail->multiplier[k], tail->shift[k]);
    return (int16_t)(es_clamp(scaled, tail->low, tail->high) + tail->zero);
}

/* All output channels of one position, from its gathered patch [taps][in_channels]. */
static void position(const es_conv_s16_args *args, const int16_t *patch, int32_t taps,
                     int16_t *out)
{
    const es_window *w = &args->window;
    const int32_t depth = w->in_channels / args->groups;
    const int32_t filters = w->out_channels / args->groups;
    const int32_t row_bytes = es_row_bytes(taps * depth, args->weight_bits);
    const int8_t *row = args->weights;
    for (int32_t c = 0; c < w->out_channels; ++c) {
        int64_t sum = args->bias[c];
        const int16_t *x = patch + c / filters * depth;
        for (int32_t tap = 0; tap < taps; ++tap) {
            for (int32_t i = 0; i < depth; ++i) {
                sum += x[i] * es_weight(row, tap * depth + i, args->weight_bits);
            }
            x += w->in_channels;
        }
        row += row_bytes;
        out[c] = finish(args, sum, c);
    }
}

void es_conv_s16_pointwise(const es_conv_s16_args *args, const int16_t *in, int16_t *out)
{
    const es_window *w = &args->window;
    const int32_t positions = w->batch * w->out_height * w->out_width;
    for (int32_t p = 0; p < positions; ++p) {
        position(args, in, 1, out);
        in += w->in_channels;
        out += w->out_channels;
    }
}

static void gather(const es_conv_s16_args *args, const int16_t *in, int32_t y, int32_t x,
                   int16_t *patch)
{
    const es_window *w = &args->window;
    const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
    const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
    const int32_t codes = w->kernel_height * w->kernel_width * w->in_channels;
    for (int32_t i = 0; i < codes; ++i) {
        patch[i] = (int16_t)args->in_zero;
    }
    for (int32_t i = ys.first; i < ys.end; ++i) {
        const int32_t line = (y + i * w->dilation_height) * w->in_width;
        for (int32_t j = xs.first; j < xs.end; ++j) {
            const int16_t *from = in + (line + x + j * w->dilation_width) * w->in_channels;
            int16_t *to = patch + (i * w->kernel_width + j) * w->in_channels;
            for (int32_t c = 0; c < w->in_channels; ++c) {
                to[c] = from[c];
            }
        }
    }
}

void es_conv_s16(const es_conv_s16_args *args, const int16_t *in, int16_t *out, int16_t *scratch)
{
    const es_window *w = &args->window;
    for (int32_t n = 0; n < w->batch; ++n) {
        for (int32_t oy = 0; oy < w->out_height; ++oy) {
            for (int32_t ox = 0; ox < w->out_width; ++ox) {
                gather(args, in, oy * w->stride_height - w->pad_top,
                       ox * w->stride_width - w->pad_left, scratch);
                position(args, scratch, w->kernel_height * w->kernel_width, out);
                out += w->out_channels;
            }
        }
        in += w->in_height * w->in_width * w->in_channels;
    }
}
