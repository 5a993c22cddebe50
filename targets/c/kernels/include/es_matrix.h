/* Convolutions and matrix products on any core: arguments.
 *
 * Tensors are channels-last. The zero point of the input is folded into the bias of convolutions,
 * and padding is filled with it, so inner loops multiply plain codes. */
#ifndef ES_MATRIX_H
#define ES_MATRIX_H

#include <stdint.h>

/* A window that slides over [in_height, in_width, in_channels]. */
typedef struct {
    int32_t batch;
    int32_t in_height, in_width, in_channels;
    int32_t out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_top, pad_left;
} es_window;

/* From sums of products to output codes: multiplier * 2^(shift - 31), clamp, zero point; `low` and
 * `high` are clamps before the zero point is added.
 * `per_channel` is 1 where multiplier and shift hold one element per output channel, else 0. */
typedef struct {
    const int32_t *multiplier;
    const int8_t *shift;
    int32_t per_channel;
    int32_t zero, low, high;
} es_tail;

/* Convolutions have `groups` groups of `depth` input and `filters` output channels; `row` is the
 * number of weights of an output channel. */
typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights; /* [out_channels][kernel_height][kernel_width][depth] */
    const int32_t *bias;   /* [out_channels] */
    int32_t groups, depth, filters, row;
    int32_t in_zero;
} es_conv_s8_args;

/* Weights of 4 or 2 bits, plus 2^(bits - 1): two output channels in a word, one in either half,
 * the first code lowest. [groups][pairs of filters][words of a row]; an odd last channel stands
 * alone in the low halves. */
typedef struct {
    es_window window;
    es_tail tail;
    const uint32_t *weights;
    const int32_t *bias;
    int32_t groups, depth, filters, row;
    int32_t in_zero;
    int32_t weight_bits;
} es_conv_low_s8_args;

/* `narrow` 1: 32-bit sums that wrap, requantized as for 8-bit activations. */
typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights;
    const int64_t *bias;
    int32_t groups, depth, filters, row;
    int32_t in_zero;
    int32_t narrow;
} es_conv_s16_args;

typedef struct {
    es_window window;
    es_tail tail;
    const uint32_t *weights;
    const int64_t *bias;
    int32_t groups, depth, filters, row;
    int32_t in_zero;
    int32_t narrow;
    int32_t weight_bits;
} es_conv_low_s16_args;

/* Depthwise convolutions with `multiplier` output channels per input channel. Outputs wait until
 * `delay` >= 1 positions have been computed, so that they may overwrite the input.
 * Weights of 4 and 2 bits are packed little end first, every tap starting at a byte. */
typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights; /* [kernel_height][kernel_width][out_channels] */
    const int32_t *bias;
    const int32_t *folded; /* the same with the zero point of the input folded, for whole windows */
    int32_t weight_bits;
    int32_t multiplier;
    int32_t in_zero;
    int32_t delay;
} es_depthwise_s8_args;

typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights;
    const int64_t *bias;
    int32_t weight_bits;
    int32_t multiplier;
    int32_t in_zero;
    int32_t delay;
    int32_t narrow;
} es_depthwise_s16_args;

/* Where the taps of a window find their code and their weight, for the first channel. */
typedef struct {
    int32_t code, weight;
} es_tap;

/* scratch: groups * row codes.
 * The `_pointwise` ones take 1x1 windows of stride 1 without padding, ungrouped; their scratch
 * is out_channels codes. The `_fully_connected` ones have one position. */
void es_conv_s8(const es_conv_s8_args *args, const int8_t *in, int8_t *out, int8_t *scratch);
void es_conv_s8_pointwise(const es_conv_s8_args *args, const int8_t *in, int8_t *out,
                          int8_t *scratch);
void es_conv_s8_fully_connected(const es_conv_s8_args *args, const int8_t *in, int8_t *out);
void es_conv_low_s8(const es_conv_low_s8_args *args, const int8_t *in, int8_t *out,
                    int8_t *scratch);
void es_conv_low_s8_pointwise(const es_conv_low_s8_args *args, const int8_t *in, int8_t *out,
                              int8_t *scratch);
void es_conv_low_s8_fully_connected(const es_conv_low_s8_args *args, const int8_t *in,
                                    int8_t *out);
void es_conv_s16(const es_conv_s16_args *args, const int16_t *in, int16_t *out, int16_t *scratch);
void es_conv_s16_pointwise(const es_conv_s16_args *args, const int16_t *in, int16_t *out,
                           int16_t *scratch);
void es_conv_s16_fully_connected(const es_conv_s16_args *args, const int16_t *in, int16_t *out);
void es_conv_low_s16(const es_conv_low_s16_args *args, const int16_t *in, int16_t *out,
                     int16_t *scratch);
void es_conv_low_s16_pointwise(const es_conv_low_s16_args *args, const int16_t *in, int16_t *out,
                               int16_t *scratch);
void es_conv_low_s16_fully_connected(const es_conv_low_s16_args *args, const int16_t *in,
                                     int16_t *out);

/* scratch: the taps, `delay` positions of outputs, and weights below 8 bits unpacked. */
void es_depthwise_s8(const es_depthwise_s8_args *args, const int8_t *in, int8_t *out,
                     void *scratch);
void es_depthwise_s16(const es_depthwise_s16_args *args, const int16_t *in, int16_t *out,
                      void *scratch);

#endif
