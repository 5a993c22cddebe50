/* Arguments of the kernels for cores with the DSP extension (Cortex-M4, M7, M33).
 *
 * Weights and channel tables are laid out by `targets/c/packing.py`. Input zero points are
 * folded into the biases; padding is filled with the input's zero point.
 *
 * A channel table holds, per group of channels, the starting values of the accumulators and
 * then one pair {multiplier, rounding} per channel. `rounding` is e | c << 8 with e the right
 * shift and c = (output zero point << e) + half of 1 << e. */
#ifndef ES_DSP_H
#define ES_DSP_H

#include <stddef.h>
#include <stdint.h>

/* Requantization and clamp of a layer's outputs. */
typedef struct {
    const int32_t *channels;
    int32_t count;   /* output channels */
    int32_t low;     /* clamp; [-128, 127] costs nothing */
    int32_t high;
    int32_t floored; /* outputs are clamped at their zero point or above */
} es_dsp_outputs;

/* 1 x 1 convolution and matrix product: `pixels` runs of `depth` bytes. */
typedef struct {
    const void *weights;
    es_dsp_outputs outputs;
    int32_t depth;
    int32_t rows;
    int32_t columns;
    int32_t row_bytes;    /* from a pixel to the one a stride below */
    int32_t column_bytes; /* from a pixel to the next one read in its row */
} es_dsp_pointwise_args;

/* Convolution of any window, through a ring of padded input rows. */
typedef struct {
    const void *weights;
    es_dsp_outputs outputs;
    int32_t zero;         /* input zero point: the padding's code */
    int32_t in_rows;
    int32_t in_row_bytes;
    int32_t left_bytes;   /* padding of a row in the ring, in bytes */
    int32_t ring_bytes;   /* a row in the ring */
    int32_t ring_rows;
    int32_t top;
    int32_t out_rows;
    int32_t out_columns;
    int32_t row_stride;
    int32_t column_bytes; /* column stride in bytes */
    int32_t window_rows;
    int32_t row_dilation;
    int32_t runs;         /* stretches of consecutive bytes in a window row */
    int32_t run_bytes;
    int32_t run_step;     /* bytes from a run to the next */
    int32_t join;         /* runs are joined before they are expanded */
    int32_t images;
} es_dsp_conv_args;

/* Convolution of few channels, through a band of input rows; weights are ordered by column, row
 * and channel of the window. */
typedef struct {
    const void *weights;
    es_dsp_outputs outputs;
    int32_t zero;
    int32_t in_rows;
    int32_t in_columns;
    int32_t channels;
    int32_t top;
    int32_t left;
    int32_t window_rows;
    int32_t words;      /* of a window */
    int32_t row_stride;
    int32_t step;       /* bytes of the band from a window to the next */
    int32_t out_rows;
    int32_t out_columns;
    int32_t band_bytes;
    int32_t images;
} es_dsp_band_args;

/* One row of `depth` bytes times a matrix, once per row. */
typedef struct {
    const void *weights;
    es_dsp_outputs outputs;
    int32_t depth;
    int32_t rows;
} es_dsp_fully_connected_args;

/* The same for one row of 4 * `words` bytes and requantization that all channels share.
 *
 * `biases` are the starting values of the accumulators, padded to whole groups of eight. The
 * order is the assembly's. */
typedef struct {
    const void *weights;
    uint16_t words;
    uint16_t count; /* output channels */
    int32_t multiplier;
    int32_t rounding;
    const int32_t *biases;
} es_dsp_fully_connected_uniform_args;

/* Depthwise convolution, a channel at a time through a padded plane of 16-bit codes.
 *
 * Channel tables hold {bias, multiplier, rounding} per channel. Where the output has the
 * input's channels it may lie exactly over it: a channel is read before it is written. */
typedef struct {
    const void *weights;
    es_dsp_outputs outputs;
    int32_t zero;
    int32_t weight_bytes; /* of an output channel */
    int32_t images;
    int32_t in_rows;
    int32_t in_columns;
    int32_t in_channels;
    int32_t multiplier;
    int32_t window_rows;
    int32_t window_columns;
    int32_t row_stride;
    int32_t column_stride;
    int32_t row_dilation;
    int32_t column_dilation;
    int32_t top;
    int32_t left;
    int32_t out_rows;
    int32_t out_columns;
    int32_t strip_rows;   /* output rows that one filling of the plane serves */
    int32_t plane_rows;
    int32_t plane_bytes;  /* a row of the plane; a multiple of 4 */
    int32_t planes;       /* filled at a time: 1, or 4 where that is a word of channels */
    int32_t chunk_rows;   /* output rows whose sums are kept at a time; 0: none are */
} es_dsp_depthwise_args;

#define ES_DSP_KERNEL(name, arguments) \
    void name(const arguments *args, const void *input, void *output, void *scratch)

ES_DSP_KERNEL(es_dsp_pointwise_s8, es_dsp_pointwise_args);
ES_DSP_KERNEL(es_dsp_pointwise_wide_s8, es_dsp_pointwise_args);
ES_DSP_KERNEL(es_dsp_pointwise_s4, es_dsp_pointwise_args);
ES_DSP_KERNEL(es_dsp_conv_s8, es_dsp_conv_args);
ES_DSP_KERNEL(es_dsp_conv_wide_s8, es_dsp_conv_args);
ES_DSP_KERNEL(es_dsp_conv_s4, es_dsp_conv_args);
ES_DSP_KERNEL(es_dsp_band_s8, es_dsp_band_args);
ES_DSP_KERNEL(es_dsp_band_wide_s8, es_dsp_band_args);
ES_DSP_KERNEL(es_dsp_band_s4, es_dsp_band_args);
ES_DSP_KERNEL(es_dsp_fully_connected_padded_s8, es_dsp_fully_connected_args);
ES_DSP_KERNEL(es_dsp_fully_connected_padded_s4, es_dsp_fully_connected_args);
ES_DSP_KERNEL(es_dsp_depthwise_s8, es_dsp_depthwise_args);
ES_DSP_KERNEL(es_dsp_depthwise_s4, es_dsp_depthwise_args);
ES_DSP_KERNEL(es_dsp_depthwise_3x3_s8, es_dsp_depthwise_args);
ES_DSP_KERNEL(es_dsp_depthwise_3x3_s4, es_dsp_depthwise_args);
ES_DSP_KERNEL(es_dsp_depthwise_3x3_stride2_s8, es_dsp_depthwise_args);
ES_DSP_KERNEL(es_dsp_depthwise_3x3_stride2_s4, es_dsp_depthwise_args);
void es_dsp_fully_connected_s8(const es_dsp_fully_connected_args *args, const void *input,
                               void *output);
void es_dsp_fully_connected_uniform_s8(const es_dsp_fully_connected_uniform_args *args,
                                       const void *input, void *output);
void es_dsp_fully_connected_s4(const es_dsp_fully_connected_args *args, const void *input,
                               void *output);

#endif
