/* The inner loops in assembly, and what the drivers in C hand them. Private to the DSP set. */
#ifndef ES_DSP_CORE_H
#define ES_DSP_CORE_H

#include <stdint.h>

#include "es_dsp.h"

/* What one call of an inner loop needs; the order is the assembly's. */
typedef struct {
    const void *x;
    uintptr_t entry; /* where to enter the unrolled loop, for the remainder */
    const void *x_end;
    void (*epilogue)(void);
    const int32_t *table;
    const int32_t *table_end;
    const void *weights;
    int32_t offset; /* for rows and int4 weights: 16 times the sum of the row */
    int32_t pairs;  /* of pixels, where the loop expands all but the first by itself */
    const void *in; /* the third pixel; each is `step` bytes of `words` words */
    int32_t step;
    int32_t words;
    int32_t count;  /* bytes from a pixel's outputs to the next one's */
} es_dsp_frame;

/* Codes for the channels of a frame: matrix loops write two pixels, others only the first. */
typedef void es_dsp_run(const es_dsp_frame *frame, void *first, void *second);

/* Expanded activations of one pixel or of a pair, from whole words of bytes; `to` after them.
 * Where int4 weights need them, the elements are added to `sums`, one per pixel. */
typedef uint32_t *es_dsp_expand(uint32_t *to, const void *first, const void *second,
                                int32_t words, int32_t *sums);

/* An inner loop and its sizes. */
typedef struct {
    es_dsp_run *run;
    void (*tail)(void);    /* the end of the unrolled steps */
    void (*floored)(void); /* epilogue for outputs clamped at their zero point or above */
    void (*rounded)(void); /* epilogue for all others */
    uint32_t step_code;    /* bytes of code in a step */
    uint32_t unrolled;     /* steps in the loop, a power of two */
    int32_t step_x;        /* bytes of x in a step */
    int32_t word_steps;    /* steps for four elements */
    int32_t word_weights;  /* bytes of weights for four elements of a group */
    int32_t group;         /* channels at a time */
    int32_t group_words;   /* table words of a group */
    es_dsp_expand *pair;
    es_dsp_expand *one;
    int32_t (*offset)(const void *row, int32_t words); /* NULL: the frame needs none */
    es_dsp_run *run_pairs; /* for any number of pairs; NULL: there is none */
} es_dsp_core;

/* The scratch of a pair: the pixels' sums, then what the loop reads. */
#define ES_DSP_SUM_WORDS 2

extern const es_dsp_core es_dsp_matrix_s8;
extern const es_dsp_core es_dsp_matrix_wide_s8;
extern const es_dsp_core es_dsp_matrix_s4;
extern const es_dsp_core es_dsp_row_s8;
extern const es_dsp_core es_dsp_row_s4;

/* Pixel pairs in turn on their way through an inner loop. */
typedef struct {
    es_dsp_frame whole; /* the full groups of channels */
    es_dsp_frame rest;  /* the group that is not full */
    const es_dsp_core *core;
    const es_dsp_outputs *outputs;
    int32_t full;       /* channels in full groups */
    int32_t plain;      /* no rest and no clamp */
} es_dsp_matrix;

void es_dsp_prepare(es_dsp_matrix *matrix, const es_dsp_core *core, const void *weights,
                    const es_dsp_outputs *outputs, const void *x, int32_t words);

void es_dsp_emit_parts(const es_dsp_matrix *matrix, int8_t *first, int8_t *second);

/* All channels of two pixels (or of one, twice) from expanded activations. */
static inline void es_dsp_emit(const es_dsp_matrix *matrix, int8_t *first, int8_t *second)
{
    if (matrix->plain) {
        matrix->core->run(&matrix->whole, first, second);
    } else {
        es_dsp_emit_parts(matrix, first, second);
    }
}

/* The same for `pairs` pairs of pixels, `step` bytes apart, by the loop that expands them. */
static inline void es_dsp_emit_pairs(es_dsp_matrix *matrix, const int8_t *input, int8_t *output,
                                     int32_t step, int32_t words, int32_t pairs)
{
    es_dsp_frame *const frame = &matrix->whole;

    matrix->core->pair((uint32_t *)(uintptr_t)frame->x, input, input + step, words, NULL);
    frame->pairs = pairs;
    frame->in = input + 2 * step;
    frame->step = step;
    frame->words = words;
    frame->count = matrix->outputs->count;
    matrix->core->run_pairs(frame, output, output + frame->count);
}

/* Windows as runs of bytes; the order is the assembly's. */
typedef struct {
    const int8_t **window; /* where each run starts, but for the column */
    int32_t runs;
    int32_t run_bytes;
    int32_t run_words;     /* whole words that hold a run */
    int32_t second;        /* bytes from the first joined window to the second */
} es_dsp_runs;

/* The runs of two windows, at byte columns `first` and `second`, one after the other. May
 * read and write up to three bytes after the last run. */
void es_dsp_join(const es_dsp_runs *runs, int8_t *to, int32_t first, int32_t second);

es_dsp_expand es_dsp_expand_pair;
es_dsp_expand es_dsp_expand_one;
es_dsp_expand es_dsp_expand_pair_summed;
es_dsp_expand es_dsp_expand_one_summed;
void es_dsp_copy(void *to, const void *from, int32_t bytes);
void es_dsp_clamp(int8_t *codes, int32_t count, const es_dsp_outputs *outputs);

void es_dsp_pointwise(const es_dsp_pointwise_args *args, const int8_t *input, int8_t *output,
                      void *scratch, const es_dsp_core *core);
void es_dsp_conv(const es_dsp_conv_args *args, const int8_t *input, int8_t *output,
                 void *scratch, const es_dsp_core *core);
void es_dsp_band(const es_dsp_band_args *args, const int8_t *input, int8_t *output, void *scratch,
                 const es_dsp_core *core);
void es_dsp_fully_connected(const es_dsp_fully_connected_args *args, const int8_t *input,
                            int8_t *output, void *scratch, const es_dsp_core *core);

/* How one channel's plane is walked; the order is the assembly's. */
typedef struct {
    int32_t skip;        /* bytes from where the steps of a row end to the next row */
    int32_t back;        /* bytes of sums that a row makes beyond its columns */
    int32_t row_bytes;   /* bytes that the steps of a row advance */
    const int16_t *plane;
    int32_t pitch;       /* bytes of a plane row */
    int32_t chunk_bytes; /* of the plane, whose rows' sums are requantized together */
    const int16_t *end;  /* the plane row after the last */
    void (*codes)(void); /* sums to codes */
    int32_t *sums;
    int32_t channels;    /* bytes from an output to the next */
    int32_t three;       /* 3 * channels */
    uintptr_t enter;     /* where to enter the unrolled steps of a row */
    const es_dsp_depthwise_args *args;
    int32_t rows;        /* of outputs */
} es_dsp_plane;

/* One output channel from its plane; `table` is {bias, multiplier, rounding}. */
typedef void es_dsp_plane_run(const es_dsp_plane *plane, const void *weights,
                              const int32_t *table, int8_t *output);

/* Loops over the plane. In assembly, 4 bytes of a row make `step_columns` sums; 0: in C. */
typedef struct {
    es_dsp_plane_run *run;
    void (*tail)(void);   /* the end of the four unrolled steps */
    uint32_t step_code;   /* bytes of code in a step */
    int32_t step_columns;
} es_dsp_plane_core;

void es_dsp_codes_floored(void);
void es_dsp_codes_rounded(void);

void es_dsp_depthwise(const es_dsp_depthwise_args *args, const int8_t *input, int8_t *output,
                      void *scratch, const es_dsp_plane_core *core);

/* Where and how a channel's input goes into the plane; the order is the assembly's. */
typedef struct {
    int16_t *to;
    int32_t channels;
    int32_t three;         /* 3 * channels */
    int32_t skip;          /* bytes between the end of a row in the plane and the next */
    int32_t passes;        /* turns of the loop per row */
    uintptr_t singles;     /* where to enter the code for single elements */
    uintptr_t fours;       /* where to enter the loop */
    int32_t rows;
} es_dsp_gather_args;

/* The same for four channels and planes. */
typedef struct {
    int16_t *to;
    int32_t channels;
    int32_t stride;        /* bytes from a plane to the next */
    int32_t three;         /* 3 * stride */
    int32_t skip;
    int32_t pairs;         /* of columns, at least one */
    int32_t odd;           /* a column is left */
    int32_t rows;
} es_dsp_gather_four_args;

void es_dsp_gather_four(const es_dsp_gather_four_args *args, const int8_t *input);
void es_dsp_gather(const es_dsp_gather_args *args, const int8_t *input);
void es_dsp_gather_singles(void);
void es_dsp_gather_fours(void);
void es_dsp_gather_row(void);

#endif
