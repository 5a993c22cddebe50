/* What depthwise kernels share: strips of rows, planes of one channel, the loop over channels.
 *
 * A strip of output rows reads its input rows of a channel, then writes that channel: in place
 * where input and output have the same channels. Scratch: the plane. */
#include "es_dsp_core.h"

typedef struct {
    es_dsp_plane plane;
    es_dsp_gather_args gather;
    int32_t first;  /* input row that the gathering starts at */
} strip;

static void fill(int16_t *plane, const es_dsp_depthwise_args *args)
{
    uint32_t *to = (uint32_t *)(void *)plane;
    const uint32_t pair = ((uint32_t)args->zero & 0xFFFFu) * 0x00010001u;

    for (int32_t words = args->plane_rows * args->plane_bytes / 4; words > 0; words--) {
        *to++ = pair;
    }
}

/* Rows of the input that output rows from `row` on read. */
static void place_gather(strip *now, const es_dsp_depthwise_args *args, int16_t *plane,
                         int32_t row)
{
    es_dsp_gather_args *gather = &now->gather;
    const int32_t width = args->in_columns, fours = width / 4;
    const int32_t top = row * args->row_stride - args->top;
    const int32_t reach =
        (now->plane.rows - 1) * args->row_stride + (args->window_rows - 1) * args->row_dilation;
    const int32_t first = top < 0 ? 0 : top;
    const int32_t end = top + reach < args->in_rows ? top + reach + 1 : args->in_rows;

    now->first = first;
    gather->to = plane + (first - top) * (args->plane_bytes / 2) + args->left;
    gather->channels = args->in_channels;
    gather->three = 3 * args->in_channels;
    gather->skip = args->plane_bytes - 2 * width;
    gather->passes = (fours + 3) / 4;
    gather->singles = (uintptr_t)es_dsp_gather_singles - 12u * (uintptr_t)(width % 4);
    gather->fours = fours == 0 ? (uintptr_t)es_dsp_gather_row
                               : (uintptr_t)es_dsp_gather_fours -
                                     36u * (uintptr_t)((fours - 1) % 4 + 1);
    gather->rows = end - first;
}

static void place_plane(es_dsp_plane *plane, const es_dsp_depthwise_args *args,
                        const es_dsp_plane_core *core, int32_t rows)
{
    const int32_t pitch = args->plane_bytes * args->row_stride;

    plane->args = args;
    plane->rows = rows;
    plane->pitch = args->plane_bytes;
    plane->channels = args->outputs.count;
    plane->end = plane->plane + rows * (pitch / 2);
    if (core->step_columns > 0) {
        const int32_t odd = args->out_columns % core->step_columns;
        plane->steps = args->out_columns / core->step_columns * 4;
        plane->skip = pitch - plane->steps;
        plane->after = args->outputs.floored ? core->floored_after[odd] : core->rounded_after[odd];
    }
}

static void run_strip(const strip *now, const es_dsp_depthwise_args *args,
                      es_dsp_plane_run *run, const int8_t *input, int8_t *output)
{
    const char *weights = args->weights;
    const int32_t *table = args->outputs.channels;

    for (int32_t channel = 0; channel < args->in_channels; channel++) {
        if (now->gather.rows > 0) {
            es_dsp_gather(&now->gather, input++);
        }
        for (int32_t copy = 0; copy < args->multiplier; copy++) {
            run(&now->plane, weights, table, output++);
            weights += args->weight_bytes;
            table += 3;
        }
    }
}

void es_dsp_depthwise(const es_dsp_depthwise_args *args, const int8_t *input, int8_t *output,
                      void *scratch, const es_dsp_plane_core *core)
{
    es_dsp_plane_run *run = args->outputs.floored ? core->floored : core->rounded;
    const int32_t out_row = args->out_columns * args->outputs.count;
    const int32_t in_row = args->in_columns * args->in_channels;
    strip now;

    now.plane.plane = scratch;
    for (int32_t image = 0; image < args->images; image++) {
        for (int32_t row = 0; row < args->out_rows; row += args->strip_rows) {
            const int32_t left = args->out_rows - row;
            const int32_t rows = left < args->strip_rows ? left : args->strip_rows;
            fill(scratch, args);
            place_plane(&now.plane, args, core, rows);
            place_gather(&now, args, scratch, row);
            run_strip(&now, args, run, input + now.first * in_row, output);
            es_dsp_clamp(output, rows * out_row, &args->outputs);
            output += rows * out_row;
        }
        input += args->in_rows * in_row;
    }
}
