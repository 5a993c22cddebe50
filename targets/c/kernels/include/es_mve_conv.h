/* Walks over the positions of convolutions, for weights of any width: they are told which function
 * computes the channels of positions. */
#ifndef ES_MVE_CONV_H
#define ES_MVE_CONV_H

#include <stddef.h>

#include "es_gather.h"
#include "es_mve_block.h"

typedef void es_mve_rows(const es_mve_conv_args *args, es_mve_block *block);

static inline void es_mve_walk_pointwise(const es_mve_conv_args *args, const int8_t *in,
                                         int8_t *out, es_mve_rows *rows)
{
    const es_window *w = &args->window;
    es_mve_block block = es_mve_block_of(args);
    for (int32_t left = w->batch * w->out_height * w->out_width; left > 0; left -= 2) {
        block.first = in;
        block.second = left > 1 ? in + w->in_channels : NULL;
        block.out = out;
        rows(args, &block);
        in += 2 * w->in_channels;
        out += 2 * w->out_channels;
    }
}

/* `rows` stretches of `count` > 0 bytes, `stride` apart in memory, to one run. */
static inline void es_mve_copy_rows(int8_t *to, const int8_t *from, int32_t count, int32_t stride,
                                    int32_t rows)
{
    const int32_t passed = (count + 15) & ~15;
    __asm volatile("1:  wlstp.8 lr, %[count], 3f\n"
                   "2:  vldrb.8 q0, [%[from]], #16\n"
                   "    vstrb.8 q0, [%[to]], #16\n"
                   "    letp    lr, 2b\n"
                   "3:  add     %[from], %[jump]\n"
                   "    sub     %[to], %[back]\n"
                   "    subs    %[rows], #1\n"
                   "    bne     1b\n"
                   : [to] "+r"(to), [from] "+r"(from), [rows] "+r"(rows)
                   : [count] "r"(count), [jump] "r"(stride - passed), [back] "r"(passed - count)
                   : "q0", "lr", "cc", "memory");
}

/* The codes that the window at input position (y, x) meets: [kernel_height][kernel_width][C]. */
static void es_mve_gather(const es_mve_conv_args *args, const int8_t *in, int32_t y, int32_t x,
                          int8_t *patch)
{
    const es_window *w = &args->window;
    const int32_t channels = w->in_channels;
    const int32_t row = w->kernel_width * channels;
    const int32_t in_row = w->in_width * channels;
    const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
    const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
    if (ys.first > 0 || ys.end < w->kernel_height || xs.first > 0 || xs.end < w->kernel_width) {
        es_mve_fill(patch, args->in_zero, args->depth);
    }
    for (int32_t i = ys.first; i < ys.end; ++i) {
        const int8_t *from = in + (y + i * w->dilation_height) * in_row + x * channels;
        int8_t *to = patch + i * row;
        if (w->dilation_width == 1) {
            const int32_t skipped = xs.first * channels;
            es_mve_copy(to + skipped, from + skipped, (xs.end - xs.first) * channels);
            continue;
        }
        for (int32_t j = xs.first; j < xs.end; ++j) {
            es_mve_copy(to + j * channels, from + j * w->dilation_width * channels, channels);
        }
    }
}

static inline void es_mve_walk(const es_mve_conv_args *args, const int8_t *in, int8_t *out,
                               int8_t *scratch, es_mve_rows *rows)
{
    const es_window *w = &args->window;
    const int32_t row = w->kernel_width * w->in_channels;
    const int32_t in_row = w->in_width * w->in_channels;
    const int32_t last_y = w->in_height - (w->kernel_height - 1) * w->dilation_height - 1;
    const int32_t last_x = w->dilation_width == 1 ? w->in_width - w->kernel_width : -1;
    es_mve_block block = es_mve_block_of(args);
    int32_t waiting = 0;
    block.first = scratch;
    for (int32_t n = 0; n < w->batch; ++n) {
        for (int32_t oy = 0; oy < w->out_height; ++oy) {
            const int32_t y = oy * w->stride_height - w->pad_top;
            const int32_t end = y < 0 || y > last_y ? -1 : last_x;
            int32_t x = -w->pad_left;
            for (int32_t ox = 0; ox < w->out_width; ++ox) {
                int8_t *patch = scratch + waiting * args->depth;
                if (x < 0 || x > end) {
                    es_mve_gather(args, in, y, x, patch);
                } else {
                    es_mve_copy_rows(patch, in + y * in_row + x * w->in_channels, row,
                                     in_row * w->dilation_height, w->kernel_height);
                }
                x += w->stride_width;
                if (++waiting < args->pixels) {
                    continue;
                }
                block.second = waiting > 1 ? patch : NULL;
                block.out = out;
                rows(args, &block);
                out += waiting * w->out_channels;
                waiting = 0;
            }
        }
        in += w->in_height * in_row;
    }
    if (waiting) {
        block.second = NULL;
        block.out = out;
        rows(args, &block);
    }
}

#endif
