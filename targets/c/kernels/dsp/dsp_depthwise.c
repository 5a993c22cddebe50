/* What depthwise kernels share: strips of rows, planes of one channel, the loop over channels.
 *
 * A strip of output rows reads its input rows of a channel, then writes that channel: in place
 * where input and output have the same channels. Scratch: the plane, then sums. */
#include "es_dsp_core.h"

typedef struct {
    es_dsp_plane plane;
    es_dsp_gather_args gather;
    es_dsp_gather_four_args four;
    int32_t first;  /* input row that the gathering starts at */
} strip;

static void fill(int16_t *plane, const es_dsp_depthwise_args *args)
{
    uint32_t *to = (uint32_t *)(void *)plane;
    const uint32_t pair = ((uint32_t)args->zero & 0xFFFFu) * 0x00010001u;

    for (int32_t words = args->planes * args->plane_rows * args->plane_bytes / 4; words > 0; words--) {
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
    now->four = (es_dsp_gather_four_args){
        .to = gather->to,
        .channels = args->in_channels,
        .stride = args->plane_rows * args->plane_bytes,
        .three = 3 * args->plane_rows * args->plane_bytes,
        .skip = gather->skip,
        .pairs = width / 2,
        .odd = width % 2,
        .rows = gather->rows,
    };
}

static void place_plane(es_dsp_plane *plane, const es_dsp_depthwise_args *args,
                        const es_dsp_plane_core *core, int32_t rows)
{
    const int32_t pitch = args->plane_bytes * args->row_stride;

    plane->args = args;
    plane->rows = rows;
    plane->pitch = args->plane_bytes;
    plane->channels = args->outputs.count;
    plane->three = 3 * args->outputs.count;
    plane->end = plane->plane + rows * (pitch / 2);
    if (core->step_columns > 0) {
        const int32_t steps = (args->out_columns + core->step_columns - 1) / core->step_columns;
        plane->row_bytes = 4 * steps;
        plane->skip = pitch - plane->row_bytes;
        plane->back = 4 * (steps * core->step_columns - args->out_columns);
        plane->enter = (uintptr_t)core->tail - (((uint32_t)steps - 1) % 4 + 1) * core->step_code;
        plane->chunk_bytes = args->chunk_rows * pitch;
        plane->codes = args->outputs.floored ? es_dsp_codes_floored : es_dsp_codes_rounded;
        plane->sums = (int32_t *)(uintptr_t)plane->plane +
                      args->planes * args->plane_rows * args->plane_bytes / 4;
    }
}

static void run_strip(strip *now, const es_dsp_depthwise_args *args, es_dsp_plane_run *run,
                      const int8_t *input, int8_t *output)
{
    const char *weights = args->weights;
    const int32_t *table = args->outputs.channels;
    const int32_t halves = args->plane_rows * args->plane_bytes / 2;
    const int32_t whole = args->planes * halves;

    for (int32_t channel = 0; channel < args->in_channels; channel += args->planes) {
        if (now->gather.rows > 0 && args->planes == 1) {
            es_dsp_gather(&now->gather, input);
        } else if (now->gather.rows > 0) {
            es_dsp_gather_four(&now->four, input);
        }
        input += args->planes;
        for (int32_t filled = 0; filled < args->planes; filled++) {
            for (int32_t copy = 0; copy < args->multiplier; copy++) {
                run(&now->plane, weights, table, output++);
                weights += args->weight_bytes;
                table += 3;
            }
            now->plane.plane += halves;
            now->plane.end += halves;
        }
        now->plane.plane -= whole;
        now->plane.end -= whole;
    }
}

void es_dsp_depthwise(const es_dsp_depthwise_args *args, const int8_t *input, int8_t *output,
                      void *scratch, const es_dsp_plane_core *core)
{
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
            run_strip(&now, args, core->run, input + now.first * in_row, output);
            es_dsp_clamp(output, rows * out_row, &args->outputs);
            output += rows * out_row;
        }
        input += args->in_rows * in_row;
    }
}
