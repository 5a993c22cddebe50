/* Depthwise convolution of any window, int4 weights: two in a byte, the first one low. */
#include "es_common.h"
#include "es_dsp_core.h"
#include "es_dsp_window.h"
#include "es_weights.h"

static void run(const es_dsp_plane *plane, const void *weights, const int32_t *table,
                int8_t *output)
{
    const es_dsp_depthwise_args *args = plane->args;
    const int32_t count = args->window_rows * args->window_columns;
    int8_t *const codes =
        (int8_t *)(uintptr_t)plane->plane + args->plane_rows * args->plane_bytes;

    for (int32_t i = 0; i < count; i++) {
        codes[i] = (int8_t)es_weight(weights, i, 4);
    }
    es_dsp_window(plane, codes, table, output);
}

static const es_dsp_plane_core core = {.floored = run, .rounded = run};

void es_dsp_depthwise_s4(const es_dsp_depthwise_args *args, const void *input, void *output,
                         void *scratch)
{
    es_dsp_depthwise(args, input, output, scratch, &core);
}
