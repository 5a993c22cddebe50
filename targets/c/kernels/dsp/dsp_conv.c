/* Convolution of any window, stride, dilation and padding.
 *
 * Input rows go, padded, into a ring before the output row that reads them first is written,
 * so no window is tested for padding and the output may overwrite input that the ring holds.
 * Scratch: expanded pixels, addresses of a window's runs, ring, and, where runs are short or
 * not whole words, room to join them. */
#include "es_common.h"
#include "es_dsp_core.h"

typedef struct {
    const es_dsp_conv_args *args;
    const es_dsp_core *core;
    const int8_t *input;
    int8_t *ring;
    int8_t *joined; /* two windows of bytes, or NULL */
    int32_t *sums;
    uint32_t *x;
    es_dsp_runs runs;
    int32_t words;  /* of a window */
    int32_t loaded; /* padded rows so far */
} walk;

static void load_rows(walk *state, int32_t end)
{
    const es_dsp_conv_args *args = state->args;

    for (; state->loaded < end; state->loaded++) {
        const int32_t row = state->loaded - args->top;
        int8_t *slot = state->ring + state->loaded % args->ring_rows * args->ring_bytes;
        if (row >= 0 && row < args->in_rows) {
            es_dsp_copy(slot + args->left_bytes, state->input + row * args->in_row_bytes,
                        args->in_row_bytes);
        } else {
            memset(slot, args->zero, (size_t)args->ring_bytes);
        }
    }
}

static void find_window(walk *state, int32_t top)
{
    const es_dsp_conv_args *args = state->args;
    const int8_t **window = state->runs.window;
    int32_t slot = top % args->ring_rows;

    load_rows(state, top + (args->window_rows - 1) * args->row_dilation + 1);
    for (int32_t i = 0; i < args->window_rows; i++) {
        const int8_t *run = state->ring + slot * args->ring_bytes;
        for (int32_t j = 0; j < args->runs; j++) {
            *window++ = run;
            run += args->run_step;
        }
        slot += args->row_dilation;
        slot -= slot >= args->ring_rows ? args->ring_rows : 0;
    }
}

/* The windows at byte columns `first` and `second`. */
static void expand_pair(const walk *state, int32_t first, int32_t second)
{
    uint32_t *to = state->x;
    int32_t *const sums = state->sums;

    sums[0] = sums[1] = 0;
    if (state->joined != NULL) {
        int8_t *const joined = state->joined;
        es_dsp_join(&state->runs, joined, first, second);
        state->core->pair(to, joined, joined + state->runs.second, state->words, sums);
        return;
    }
    for (int32_t i = 0; i < state->runs.runs; i++) {
        const int8_t *run = state->runs.window[i];
        to = state->core->pair(to, run + first, run + second, state->runs.run_words, sums);
    }
}

/* The window at a byte column as pixel `lane` of the pair; the other pixel stays. */
static void expand_one(const walk *state, int32_t lane, int32_t column)
{
    uint32_t *to = state->x + lane;
    int32_t *const sum = state->sums + lane;

    *sum = 0;
    if (state->joined != NULL) {
        es_dsp_join(&state->runs, state->joined, column, column);
        state->core->one(to, state->joined, NULL, state->words, sum);
        return;
    }
    for (int32_t i = 0; i < state->runs.runs; i++) {
        const int8_t *run = state->runs.window[i] + column;
        to = state->core->one(to, run, NULL, state->runs.run_words, sum);
    }
}

/* One image; a pixel without a neighbour in its row waits for the next row's first. */
static void convolve(walk *state, const es_dsp_matrix *matrix, int8_t *output)
{
    const es_dsp_conv_args *args = state->args;
    const int32_t count = args->outputs.count, step = args->column_bytes;
    int8_t *waiting = NULL;

    for (int32_t row = 0; row < args->out_rows; row++) {
        int32_t column = 0, left = args->out_columns;
        find_window(state, row * args->row_stride);
        if (waiting != NULL) {
            expand_one(state, 1, column);
            es_dsp_emit(matrix, waiting, output);
            waiting = NULL;
            output += count;
            column += step;
            left--;
        }
        for (; left >= 2; left -= 2) {
            expand_pair(state, column, column + step);
            es_dsp_emit(matrix, output, output + count);
            output += 2 * count;
            column += 2 * step;
        }
        if (left > 0) {
            expand_one(state, 0, column);
            waiting = output;
            output += count;
        }
    }
    if (waiting != NULL) {
        es_dsp_emit(matrix, waiting, waiting);
    }
}

void es_dsp_conv(const es_dsp_conv_args *args, const int8_t *input, int8_t *output,
                 void *scratch, const es_dsp_core *core)
{
    const int32_t runs = args->window_rows * args->runs;
    const int32_t words = (runs * args->run_bytes + 3) / 4;
    const int32_t in_bytes = args->in_rows * args->in_row_bytes;
    const int32_t ring_bytes = (args->ring_rows * args->ring_bytes + 3) & ~3;
    const int32_t out_bytes = args->out_rows * args->out_columns * args->outputs.count;
    walk state = {
        .args = args,
        .core = core,
        .sums = scratch,
        .x = (uint32_t *)scratch + ES_DSP_SUM_WORDS,
        .runs = {NULL, runs, args->run_bytes, (args->run_bytes + 3) / 4, 4 * words + 4},
        .words = words,
    };
    es_dsp_matrix matrix;

    state.runs.window = (const int8_t **)(void *)(state.x + 4 * words);
    state.ring = (int8_t *)(void *)(state.runs.window + runs);
    state.joined = args->join ? state.ring + ring_bytes : NULL;
    es_dsp_prepare(&matrix, core, args->weights, &args->outputs, state.x, words);
    for (int32_t image = 0; image < args->images; image++) {
        state.input = input;
        state.loaded = 0;
        memset(state.ring, args->zero, (size_t)ring_bytes);
        convolve(&state, &matrix, output);
        input += in_bytes;
        output += out_bytes;
    }
}
