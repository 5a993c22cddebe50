/* Convolutions and matrix products on any core: arguments.
 *
 * Tensors are channels-last. Weights of 4 and 2 bits are packed little end first, every
 * row of the last axes (one output channel, one tap of a depthwise one) starting at a byte. The zero point of the input is folded into `bias`,
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

typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights; /* [out_channels][kernel_height][kernel_width][in_channels / groups] */
    const int32_t *bias;   /* [out_channels] */
    int32_t weight_bits;   /* 8, 4 or 2 */
    int32_t groups;
    int32_t in_zero;
} es_conv_s8_args;

typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights;
    const int64_t *bias;
    int32_t weight_bits;
    int32_t groups;
    int32_t in_zero;
    int32_t narrow; /* 1: 32-bit sums that wrap, requantized as for 8-bit activations */
} es_conv_s16_args;

typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights; /* [kernel_height][kernel_width][out_channels] */
    const int32_t *bias;
    int32_t weight_bits;
    int32_t multiplier;
    int32_t in_zero;
} es_depthwise_s8_args;

typedef struct {
    es_window window;
    es_tail tail;
    const int8_t *weights;
    const int64_t *bias;
    int32_t weight_bits;
    int32_t multiplier;
    int32_t in_zero;
    int32_t narrow;
} es_depthwise_s16_args;

/* scratch: kernel_height * kernel_width * in_channels codes.
 * The `_pointwise` ones take 1x1 windows of stride 1 without padding and need none. */
void es_conv_s8(const es_conv_s8_args *args, const int8_t *in, int8_t *out, int8_t *scratch);
void es_conv_s8_pointwise(const es_conv_s8_args *args, const int8_t *in, int8_t *out);
void es_conv_s16(const es_conv_s16_args *args, const int16_t *in, int16_t *out, int16_t *scratch);
void es_conv_s16_pointwise(const es_conv_s16_args *args, const int16_t *in, int16_t *out);

void es_depthwise_s8(const es_depthwise_s8_args *args, const int8_t *in, int8_t *out);
void es_depthwise_s16(const es_depthwise_s16_args *args, const int16_t *in, int16_t *out);

#endif
