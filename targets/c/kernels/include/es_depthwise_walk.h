/* The walk over the windows of a depthwise convolution; include it after defining ES_CODE,
 * ES_DEPTHWISE_ARGS and
 *     static void position(const ES_DEPTHWISE_ARGS *, const ES_CODE *in, const int8_t *weights,
 *                          const es_tap *taps, int32_t count, ES_CODE *out);
 * which computes all channels of one position from the taps that lie inside. */
#include "es_gather.h"
#include "es_weights.h"

/* The taps inside the spans of a window that starts at code `at`; how many there are. */
static ES_NOINLINE int32_t es_find_taps(const es_window *w, es_span ys, es_span xs, int32_t at,
                                        es_tap *taps)
{
    const int32_t line = w->dilation_height * w->in_width * w->in_channels;
    const int32_t step = w->dilation_width * w->in_channels;
    const es_tap *first = taps;
    at += ys.first * line + xs.first * step;
    for (int32_t i = ys.first; i < ys.end; ++i) {
        int32_t code = at, weight = (i * w->kernel_width + xs.first) * w->out_channels;
        for (int32_t j = xs.first; j < xs.end; ++j) {
            *taps++ = (es_tap){code, weight};
            code += step;
            weight += w->out_channels;
        }
        at += line;
    }
    return (int32_t)(taps - first);
}

static inline void es_depthwise(const ES_DEPTHWISE_ARGS *args, const ES_CODE *in, ES_CODE *out,
                                es_tap *taps)
{
    const es_window *w = &args->window;
    const int32_t all = w->kernel_height * w->kernel_width;
    ES_CODE *const ring = (ES_CODE *)(void *)(taps + all);
    ES_CODE *const end = ring + args->delay * w->out_channels;
    const int8_t *weights = args->weights;
    if (args->weight_bits != 8) {
        int8_t *unpacked = (int8_t *)(void *)end;
        es_unpack(weights, all, w->out_channels, args->weight_bits, unpacked);
        weights = unpacked;
    }
    const size_t bytes = (size_t)w->out_channels * sizeof *out;
    ES_CODE *slot = ring;
    int32_t waiting = 0;
    int32_t known = 0; /* whether `taps` are those of whole windows */
    for (int32_t n = 0; n < w->batch; ++n) {
        for (int32_t i = 0; i < w->out_height; ++i) {
            const int32_t y = i * w->stride_height - w->pad_top;
            const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
            int32_t x = -w->pad_left;
            for (int32_t j = 0; j < w->out_width; ++j) {
                if (waiting == args->delay) {
                    memcpy(out, slot, bytes);
                    out += w->out_channels;
                } else {
                    waiting += 1;
                }
                const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
                const int32_t at = (y * w->in_width + x) * w->in_channels;
                if (ys.end - ys.first == w->kernel_height && xs.end - xs.first == w->kernel_width) {
                    if (!known) {
                        es_find_taps(w, ys, xs, 0, taps);
                        known = 1;
                    }
                    position(args, in + at, weights, taps, all, slot);
                } else {
                    known = 0;
                    position(args, in, weights, taps, es_find_taps(w, ys, xs, at, taps), slot);
                }
                x += w->stride_width;
                slot += w->out_channels;
                slot = slot == end ? ring : slot;
            }
        }
        in += w->in_height * w->in_width * w->in_channels;
    }
    if (waiting < args->delay) {
        slot = ring;
    }
    for (; waiting > 0; --waiting) {
        memcpy(out, slot, bytes);
        out += w->out_channels;
        slot += w->out_channels;
        slot = slot == end ? ring : slot;
    }
}
