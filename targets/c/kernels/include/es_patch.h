/* The walk over the windows of a convolution; include it after defining ES_CODE, ES_CONV_ARGS and,
 * for elements of ES_CODE,
 *     static void position(const ES_CONV_ARGS *, const ES_CODE *patch, ES_CODE *out);
 * which computes all channels of one position from its patch [groups][taps][depth]. */
#include "es_gather.h"

/* One group's part of a patch; `at` is the first code that the window meets, inside or not. */
static void es_gather_group(const ES_CONV_ARGS *args, const ES_CODE *in, int32_t at, es_span ys,
                            es_span xs, ES_CODE *patch)
{
    const es_window *w = &args->window;
    const int32_t row = w->kernel_width * args->depth;
    const int32_t line = w->dilation_height * w->in_width * w->in_channels;
    const int32_t step = w->dilation_width * w->in_channels;
    int32_t pieces = xs.end - xs.first, codes = args->depth;
    if (step == codes) { /* neighbours in memory */
        codes *= pieces;
        pieces = 1;
    }
    for (int32_t i = ys.first; i < ys.end; ++i) {
        ES_CODE *to = patch + i * row + xs.first * args->depth;
        const ES_CODE *from = in + (at + i * line + xs.first * step);
        for (int32_t j = pieces; j > 0; --j) {
            memcpy(to, from, (size_t)codes * sizeof *to);
            to += args->depth;
            from += step;
        }
    }
}

static void es_gather(const ES_CONV_ARGS *args, const ES_CODE *in, int32_t y, int32_t x,
                      ES_CODE *patch)
{
    const es_window *w = &args->window;
    const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
    const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
    const int32_t codes = w->kernel_height * w->kernel_width * args->depth;
    if (ys.end - ys.first < w->kernel_height || xs.end - xs.first < w->kernel_width) {
        for (int32_t i = 0; i < codes * args->groups; ++i) {
            patch[i] = (ES_CODE)args->in_zero;
        }
    }
    if (ys.first >= ys.end || xs.first >= xs.end) {
        return;
    }
    int32_t at = (y * w->in_width + x) * w->in_channels;
    for (int32_t g = 0; g < args->groups; ++g) {
        es_gather_group(args, in, at, ys, xs, patch);
        at += args->depth;
        patch += codes;
    }
}

static inline void es_convolve(const ES_CONV_ARGS *args, const ES_CODE *in, ES_CODE *out,
                               ES_CODE *patch)
{
    const es_window *w = &args->window;
    for (int32_t n = 0; n < w->batch; ++n) {
        for (int32_t i = 0; i < w->out_height; ++i) {
            const int32_t y = i * w->stride_height - w->pad_top;
            int32_t x = -w->pad_left;
            for (int32_t j = 0; j < w->out_width; ++j) {
                es_gather(args, in, y, x, patch);
                position(args, patch, out);
                x += w->stride_width;
                out += w->out_channels;
            }
        }
        in += w->in_height * w->in_width * w->in_channels;
    }
}

/* For 1x1 windows of stride 1 without padding, ungrouped. An output waits in `scratch` until
 * the input of its position has been read; with one position none is needed. */
static inline void es_convolve_pointwise(const ES_CONV_ARGS *args, const ES_CODE *in,
                                         ES_CODE *out, ES_CODE *scratch)
{
    const es_window *w = &args->window;
    const int32_t positions = w->batch * w->out_height * w->out_width;
    for (int32_t p = 0; p < positions; ++p) {
        position(args, in, scratch);
        memcpy(out, scratch, (size_t)w->out_channels * sizeof *out);
        in += w->in_channels;
        out += w->out_channels;
    }
}
