/* Depthwise convolution of any window, int8 weights. */
#include "es_common.h"
#include "es_dsp_core.h"
#include "es_dsp_window.h"

static void run(const es_dsp_plane *plane, const void *weights, const int32_t *table,
                int8_t *output)
{
    es_dsp_window(plane, weights, table, output);
}

static const es_dsp_plane_core core = {.floored = run, .rounded = run};

void es_dsp_depthwise_s8(const es_dsp_depthwise_args *args, const void *input, void *output,
                         void *scratch)
{
    es_dsp_depthwise(args, input, output, scratch, &core);
}
