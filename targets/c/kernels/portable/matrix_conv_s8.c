#include <string.h>

#include "es_common.h"
#include "es_gather.h"
#include "es_matrix.h"
#include "es_weights.h"

/* Sums wrap as two's complement does: unsigned arithmetic says so. */
static uint32_t dot(const int8_t *x, const int8_t *row, int32_t count, int32_t bits)
{
    uint32_t sum = 0;
    if (bits == 8) {
        for (int32_t i = 0; i < count; ++i) {
            sum += (uint32_t)(x[i] * row[i]);
        }
        return sum;
    }
    for (int32_t i = 0; i < count; ++i) {
        sum += (uint32_t)(x[i] * es_weight(row, i, bits));
    }
    return sum;
}

/* All output channels of one position, from its gathered patch [taps][in_channels]. */
static void position(const es_conv_s8_args *args, const int8_t *patch, int32_t taps, int8_t *out)
{
    const es_window *w = &args->window;
    const es_tail *tail = &args->tail;
    const int32_t depth = w->in_channels / args->groups;
    const int32_t filters = w->out_channels / args->groups;
    const int32_t row_bytes = es_row_bytes(taps * depth, args->weight_bits);
    const int8_t *row = args->weights;
    for (int32_t c = 0; c < w->out_channels; ++c) {
        uint32_t sum = (uint32_t)args->bias[c];
        if (args->groups == 1) {
            sum += dot(patch, row, taps * depth, args->weight_bits);
        } else {
            const int8_t *x = patch + c / filters * depth;
            for (int32_t i = 0; i < taps * depth; ++i) {
                const int32_t code = es_weight(row, i, args->weight_bits);
                sum += (uint32_t)(x[i / depth * w->in_channels + i % depth] * code);
            }
        }
        row += row_bytes;
        const int32_t k = c * tail->per_channel;
        const int32_t scaled = es_requantize((int32_t)sum, tail->multiplier[k], tail->shift[k]);
        out[c] = (int8_t)(es_clamp(scaled, tail->low, tail->high) + tail->zero);
    }
}

void es_conv_s8_pointwise(const es_conv_s8_args *args, const int8_t *in, int8_t *out)
{
    const es_window *w = &args->window;
    const int32_t positions = w->batch * w->out_height * w->out_width;
    for (int32_t p = 0; p < positions; ++p) {
        position(args, in, 1, out);
        in += w->in_channels;
        out += w->out_channels;
    }
}

static void gather(const es_conv_s8_args *args, const int8_t *in, int32_t y, int32_t x,
                   int8_t *patch)
{
    const es_window *w = &args->window;
    const int32_t row = w->kernel_width * w->in_channels;
    const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
    const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
    if (ys.first > 0 || ys.end < w->kernel_height || xs.first > 0 || xs.end < w->kernel_width) {
        memset(patch, args->in_zero, (size_t)(w->kernel_height * row));
    }
    for (int32_t i = ys.first; i < ys.end; ++i) {
        const int32_t line = (y + i * w->dilation_height) * w->in_width;
        int8_t *to = patch + i * row;
        if (w->dilation_width == 1) {
            memcpy(to + xs.first * w->in_channels, in + (line + x + xs.first) * w->in_channels,
                   (size_t)((xs.end - xs.first) * w->in_channels));
            continue;
        }
        for (int32_t j = xs.first; j < xs.end; ++j) {
            memcpy(to + j * w->in_channels,
                   in + (line + x + j * w->dilation_width) * w->in_channels,
                   (size_t)w->in_channels);
        }
    }
}

void es_conv_s8(const es_conv_s8_args *args, const int8_t *in, int8_t *out, int8_t *scratch)
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
