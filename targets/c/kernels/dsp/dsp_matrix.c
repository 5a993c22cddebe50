/* What the kernels around the matrix loops share: frames and incomplete groups. */
#include "es_dsp_core.h"

static void set_frame(es_dsp_frame *frame, const es_dsp_matrix *matrix, const void *x,
                      int32_t words, int32_t groups)
{
    const es_dsp_core *core = matrix->core;
    const uint32_t steps = (uint32_t)(words * core->word_steps);
    const uint32_t entered = ((steps - 1) & (core->unrolled - 1)) + 1;

    frame->x = x;
    frame->entry = (uintptr_t)core->tail - entered * core->step_code;
    frame->x_end = (const char *)x + (int32_t)steps * core->step_x;
    frame->epilogue = matrix->outputs->floored ? core->floored : core->rounded;
    frame->table_end = frame->table + groups * core->group_words;
}

void es_dsp_prepare(es_dsp_matrix *matrix, const es_dsp_core *core, const void *weights,
                    const es_dsp_outputs *outputs, const void *x, int32_t words)
{
    const int32_t groups = outputs->count / core->group;

    matrix->core = core;
    matrix->outputs = outputs;
    matrix->full = groups * core->group;
    matrix->plain = matrix->full == outputs->count && outputs->low == -128 && outputs->high == 127;
    matrix->whole.table = outputs->channels;
    matrix->whole.weights = weights;
    set_frame(&matrix->whole, matrix, x, words, groups);
    matrix->rest.table = matrix->whole.table_end;
    matrix->rest.weights = (const char *)weights + groups * words * core->word_weights;
    set_frame(&matrix->rest, matrix, x, words, 1);
}

void es_dsp_emit_parts(const es_dsp_matrix *matrix, int8_t *first, int8_t *second)
{
    const es_dsp_outputs *outputs = matrix->outputs;

    if (matrix->full > 0) {
        matrix->core->run(&matrix->whole, first, second);
    }
    if (matrix->full < outputs->count) {
        int8_t codes[2][8];
        const int32_t left = outputs->count - matrix->full;
        matrix->core->run(&matrix->rest, codes[0], codes[1]);
        if (second != first) {
            es_dsp_copy(second + matrix->full, codes[1], left);
        }
        es_dsp_copy(first + matrix->full, codes[0], left);
    }
    es_dsp_clamp(first, outputs->count, outputs);
    if (second != first) {
        es_dsp_clamp(second, outputs->count, outputs);
    }
}
