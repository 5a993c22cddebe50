/* Depthwise convolution of any window, int4 weights: two in a byte, the first one low. */
#include "es_dsp_window.h"
#include "es_weights.h"

static void run(const es_dsp_plane *plane, const void *weights, const int32_t *table,
                int8_t *output)
{
    const es_dsp_depthwise_args *args = plane->args;
    const int32_t step = args->column_dilation, pitch = 2 * es_dsp_row_pairs(args);
    int16_t *row = es_dsp_window_weights(plane);
    int32_t index = 0;

    memset(row, 0, 2 * (size_t)(args->window_rows * pitch));
    for (int32_t i = 0; i < args->window_rows; i++) {
        for (int32_t j = 0; j < args->window_columns; j++) {
            row[j * step] = (int16_t)es_weight(weights, index++, 4);
        }
        row += pitch;
    }
    es_dsp_window_run(plane, table, output);
}

static const es_dsp_plane_core core = {.run = run};

void es_dsp_depthwise_s4(const es_dsp_depthwise_args *args, const void *input, void *output,
                         void *scratch)
{
    es_dsp_depthwise(args, input, output, scratch, &core);
}
