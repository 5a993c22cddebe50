/* A depthwise window of any size over a plane, in C: two neighbouring outputs at a time, two
 * columns per multiplication. A dilated row of weights has zeros between its own. */
#ifndef ES_DSP_WINDOW_H
#define ES_DSP_WINDOW_H

#include "es_common.h"
#include "es_dsp_core.h"

static inline int32_t es_dsp_dual(uint32_t x, uint32_t y, int32_t sum)
{
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(y), "r"(sum));
    return result;
}

static inline int8_t es_dsp_code(int32_t sum, const int32_t *table, int32_t floored)
{
    const int32_t high = es_high_mul(sum, table[1]) + (table[2] >> 8);
    const int32_t lowered = floored ? high : high + (sum >> 31);
    return (int8_t)es_saturate_s8(lowered >> (table[2] & 0xFF));
}

/* Column pairs of a row of weights. */
static inline int32_t es_dsp_row_pairs(const es_dsp_depthwise_args *args)
{
    return ((args->window_columns - 1) * args->column_dilation + 2) / 2;
}

/* Where the weights of the channel at hand are kept, as rows of column pairs. */
static inline int16_t *es_dsp_window_weights(const es_dsp_plane *plane)
{
    const es_dsp_depthwise_args *args = plane->args;
    return (int16_t *)(uintptr_t)plane->plane + args->plane_rows * (args->plane_bytes / 2);
}

typedef struct {
    const uint32_t *weights;
    int32_t rows;
    int32_t pairs;
    int32_t row_bytes; /* from a row of the window to the next in the plane */
} es_dsp_window;

static inline int32_t es_dsp_window_sum(const es_dsp_window *window, const char *at, int32_t sum)
{
    const uint32_t *weights = window->weights;

    for (int32_t i = window->rows; i > 0; i--) {
        const char *code = at;
        for (int32_t j = window->pairs; j > 0; j--) {
            sum = es_dsp_dual(es_load_word(code), *weights++, sum);
            code += 4;
        }
        at += window->row_bytes;
    }
    return sum;
}

static inline void es_dsp_window_sums(const es_dsp_window *window, const char *at,
                                      int32_t stride, int32_t sums[2])
{
    const uint32_t *weights = window->weights;
    int32_t first = sums[0], second = first;

    for (int32_t i = window->rows; i > 0; i--) {
        const char *code = at, *next = at + stride;
        for (int32_t j = window->pairs; j > 0; j--) {
            const uint32_t pair = *weights++;
            first = es_dsp_dual(es_load_word(code), pair, first);
            second = es_dsp_dual(es_load_word(next), pair, second);
            code += 4;
            next += 4;
        }
        at += window->row_bytes;
    }
    sums[0] = first;
    sums[1] = second;
}

/* One channel, whose weights are where `es_dsp_window_weights` says. */
static inline void es_dsp_window_run(const es_dsp_plane *plane, const int32_t *table,
                                     int8_t *output)
{
    const es_dsp_depthwise_args *args = plane->args;
    const int32_t floored = args->outputs.floored, channels = plane->channels;
    const int32_t stride = 2 * args->column_stride, columns = args->out_columns;
    const es_dsp_window window = {
        (const uint32_t *)(const void *)es_dsp_window_weights(plane),
        args->window_rows,
        es_dsp_row_pairs(args),
        args->row_dilation * plane->pitch,
    };
    const char *row = (const char *)plane->plane;

    for (int32_t y = 0; y < plane->rows; y++) {
        const char *at = row;
        int32_t left = columns;
        for (; left >= 2; left -= 2) {
            int32_t sums[2] = {table[0], 0};
            es_dsp_window_sums(&window, at, stride, sums);
            output[0] = es_dsp_code(sums[0], table, floored);
            output[channels] = es_dsp_code(sums[1], table, floored);
            output += 2 * channels;
            at += 2 * stride;
        }
        if (left > 0) {
            *output = es_dsp_code(es_dsp_window_sum(&window, at, table[0]), table, floored);
            output += channels;
        }
        row += args->row_stride * plane->pitch;
    }
}

#endif
