/* Rows times a matrix, one row at a time, straight from the input. */
#include "es_dsp_core.h"

void es_dsp_fully_connected(const es_dsp_fully_connected_args *args, const int8_t *input,
                            int8_t *output, void *scratch, const es_dsp_core *core)
{
    const int32_t words = (args->depth + 3) / 4;
    es_dsp_matrix matrix;

    for (int32_t row = 0; row < args->rows; row++) {
        const void *x = input;
        if (scratch != NULL) {
            es_dsp_copy(scratch, input, args->depth);
            x = scratch;
        }
        es_dsp_prepare(&matrix, core, args->weights, &args->outputs, x, words);
        if (core->offset != NULL) {
            matrix.whole.offset = matrix.rest.offset = core->offset(x, words);
        }
        es_dsp_emit(&matrix, output, output);
        input += args->depth;
        output += args->outputs.count;
    }
}
