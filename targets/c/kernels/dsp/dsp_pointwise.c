/* 1 x 1 convolution of any stride, and products of several rows with a matrix. */
#include "es_dsp_core.h"

typedef struct {
    const int8_t *at;
    int32_t column_bytes;
    int32_t row_skip; /* bytes from after the last pixel of a row to the next row */
    int32_t columns;
    int32_t left;     /* in this row */
} walk;

static inline const int8_t *next_pixel(walk *pixels)
{
    const int8_t *const found = pixels->at;

    pixels->at += pixels->column_bytes;
    if (--pixels->left == 0) {
        pixels->left = pixels->columns;
        pixels->at += pixels->row_skip;
    }
    return found;
}

void es_dsp_pointwise(const es_dsp_pointwise_args *args, const int8_t *input, int8_t *output,
                      void *scratch, const es_dsp_core *core)
{
    const int32_t words = (args->depth + 3) / 4, count = args->outputs.count;
    int32_t *const sums = scratch;
    uint32_t *const x = (uint32_t *)scratch + ES_DSP_SUM_WORDS;
    int32_t left = args->rows * args->columns;
    walk pixels = {
        .at = input,
        .column_bytes = args->column_bytes,
        .row_skip = args->row_bytes - args->columns * args->column_bytes,
        .columns = args->columns,
        .left = args->columns,
    };
    es_dsp_matrix matrix;

    es_dsp_prepare(&matrix, core, args->weights, &args->outputs, x, words);
    if (core->run_pairs != NULL && matrix.plain && args->rows == 1 && left >= 2) {
        const int32_t done = left & ~1;
        es_dsp_emit_pairs(&matrix, input, output, args->column_bytes, words, left / 2);
        left -= done;
        pixels.at += done * args->column_bytes;
        output += done * count;
    }
    for (; left >= 2; left -= 2) {
        const int8_t *const first = next_pixel(&pixels);
        const int8_t *const second = next_pixel(&pixels);
        sums[0] = sums[1] = 0;
        core->pair(x, first, second, words, sums);
        es_dsp_emit(&matrix, output, output + count);
        output += 2 * count;
    }
    if (left > 0) {
        sums[0] = sums[1] = 0;
        core->pair(x, pixels.at, pixels.at, words, sums);
        es_dsp_emit(&matrix, output, output);
    }
}
