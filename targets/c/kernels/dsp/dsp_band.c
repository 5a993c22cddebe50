/* Convolution of few input channels, through a band of the input rows that a row of outputs reads.
 *
 * The band holds its rows column by column, [columns, window rows, channels] with the padding, so
 * a window is one run of bytes and neighbouring windows lie a constant step apart. Scratch:
 * expanded pixels, then the band. */
#include "es_common.h"
#include "es_dsp_core.h"

/* A row of `channels` bytes per column, for a band whose columns are `step` bytes. Up to three
 * bytes may be written beyond a column's, where `loose`. */
static void spread(int8_t *to, const int8_t *from, int32_t columns, int32_t channels, int32_t step,
                   int32_t loose)
{
    if (channels == 1) {
        for (; columns > 0; columns--, to += step) {
            *to = *from++;
        }
    } else if (channels == 3 && loose) {
        for (; columns > 2; columns -= 2, from += 6) {
            es_store_word(to, es_load_word(from));
            to += step;
            es_store_word(to, es_load_word(from + 3));
            to += step;
        }
        for (; columns > 0; columns--, to += step, from += 3) {
            es_dsp_copy(to, from, 3);
        }
    } else if (channels == 3) {
        for (; columns > 0; columns--, to += step, from += 3) {
            memcpy(to, from, 2);
            to[2] = from[2];
        }
    } else {
        for (; columns > 0; columns--, to += step, from += channels) {
            es_dsp_copy(to, from, channels);
        }
    }
}

/* The input rows from `top` on. */
static void fill(int8_t *band, const es_dsp_band_args *args, const int8_t *input, int32_t top)
{
    const int32_t channels = args->channels, rows = args->window_rows;
    const int32_t step = rows * channels;
    int8_t *to = band + args->left * step;

    for (int32_t i = 0; i < rows; i++, to += channels) {
        const int32_t row = top + i;
        if (row >= 0 && row < args->in_rows) {
            spread(to, input + row * args->in_columns * channels, args->in_columns, channels,
                   step, i < rows - 1);
        } else {
            for (int32_t column = 0; column < args->in_columns; column++) {
                memset(to + column * step, args->zero, (size_t)channels);
            }
        }
    }
}

static void run_row(es_dsp_matrix *matrix, const es_dsp_band_args *args, const int8_t *at,
                    int8_t *output, int32_t *sums)
{
    const int32_t count = args->outputs.count, step = args->step;
    const int32_t words = args->words, columns = args->out_columns;
    int32_t left = columns;

    if (left >= 2 && matrix->core->run_pairs != NULL && matrix->plain) {
        es_dsp_emit_pairs(matrix, at, output, step, words, left / 2);
        at += (left & ~1) * step;
        output += (left & ~1) * count;
        left &= 1;
    }
    for (; left > 0; left -= 2) {
        const int32_t next = left > 1;
        sums[0] = sums[1] = 0;
        matrix->core->pair((uint32_t *)sums + ES_DSP_SUM_WORDS, at, at + next * step, words, sums);
        es_dsp_emit(matrix, output, output + next * count);
        at += 2 * step;
        output += 2 * count;
    }
}

void es_dsp_band(const es_dsp_band_args *args, const int8_t *input, int8_t *output, void *scratch,
                 const es_dsp_core *core)
{
    int32_t *const sums = scratch;
    uint32_t *const x = (uint32_t *)scratch + ES_DSP_SUM_WORDS;
    int8_t *const band = (int8_t *)(x + 4 * args->words);
    es_dsp_matrix matrix;

    es_dsp_prepare(&matrix, core, args->weights, &args->outputs, x, args->words);
    for (int32_t image = 0; image < args->images; image++) {
        memset(band, args->zero, (size_t)args->band_bytes);
        for (int32_t row = 0; row < args->out_rows; row++) {
            fill(band, args, input, row * args->row_stride - args->top);
            run_row(&matrix, args, band, output, sums);
            output += args->out_columns * args->outputs.count;
        }
        input += args->in_rows * args->in_columns * args->channels;
    }
}
