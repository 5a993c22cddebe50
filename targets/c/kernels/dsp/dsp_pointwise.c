/* 1 x 1 convolution of any stride, and products of several rows with a matrix. */
#include "es_dsp_core.h"

void es_dsp_pointwise(const es_dsp_pointwise_args *args, const int8_t *input, int8_t *output,
                      void *scratch, const es_dsp_core *core)
{
    const int32_t words = (args->depth + 3) / 4, count = args->outputs.count;
    int32_t *const sums = scratch;
    uint32_t *const x = (uint32_t *)scratch + ES_DSP_SUM_WORDS;
    es_dsp_matrix matrix;
    int32_t column = 0, left = args->rows * args->columns;

    es_dsp_prepare(&matrix, core, args->weights, &args->outputs, x, words);
    while (left > 0) {
        const int8_t *pixels[2];
        const int32_t taken = left > 1 ? 2 : 1;
        for (int32_t i = 0; i < taken; i++) {
            pixels[i] = input + column * args->column_bytes;
            if (++column == args->columns) {
                column = 0;
                input += args->row_bytes;
            }
        }
        if (taken == 1) {
            pixels[1] = pixels[0];
        }
        sums[0] = sums[1] = 0;
        core->pair(x, pixels[0], pixels[1], words, sums);
        es_dsp_emit(&matrix, output, output + (taken - 1) * count);
        output += taken * count;
        left -= taken;
    }
}
