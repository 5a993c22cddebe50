/* A depthwise window of any size over a plane, in C. */
#ifndef ES_DSP_WINDOW_H
#define ES_DSP_WINDOW_H

#include "es_common.h"
#include "es_dsp_core.h"

static inline int8_t es_dsp_code(int32_t sum, const int32_t *table, int32_t floored)
{
    const int32_t high = es_high_mul(sum, table[1]) + (table[2] >> 8);
    const int32_t lowered = floored ? high : high + (sum >> 31);
    return (int8_t)es_saturate_s8(lowered >> (table[2] & 0xFF));
}

static inline void es_dsp_window(const es_dsp_plane *plane, const int8_t *weights,
                                 const int32_t *table, int8_t *output)
{
    const es_dsp_depthwise_args *args = plane->args;
    const int32_t pitch = plane->pitch / 2, step = args->column_dilation;
    const int16_t *row = plane->plane;

    for (int32_t y = 0; y < plane->rows; y++) {
        const int16_t *window = row;
        for (int32_t x = 0; x < args->out_columns; x++) {
            const int8_t *weight = weights;
            const int16_t *line = window;
            int32_t sum = table[0];
            for (int32_t i = 0; i < args->window_rows; i++) {
                const int16_t *code = line;
                for (int32_t j = args->window_columns; j > 0; j--) {
                    sum += *code * *weight++;
                    code += step;
                }
                line += args->row_dilation * pitch;
            }
            *output = es_dsp_code(sum, table, args->outputs.floored);
            output += plane->channels;
            window += args->column_stride;
        }
        row += args->row_stride * pitch;
    }
}

#endif
