/* Arguments of the kernels for cores with MVE (Helium): Cortex-M55.
 *
 * Input zero points are folded into the biases; padding is the input's zero point. Channels come
 * in groups with one record of requantization words each, and weights lie in the order in which
 * kernels read them (`targets/c/lowerings/mve_layout.py`). */
#ifndef ES_MVE_H
#define ES_MVE_H

#include <stdint.h>

#include "es_elementwise.h"
#include "es_matrix.h"

/* How negative ties of the right shift fall, and whether there are left shifts. */
enum {
    ES_MVE_HIDDEN, /* outputs are clamped at their zero point or above: nobody sees how */
    ES_MVE_AWAY,   /* away from zero; all channels shift right by 1 or more */
    ES_MVE_MIXED   /* any shift */
};

/* `low` and `high` are limits of the output codes themselves, `zero` included. */
typedef struct {
    const int32_t *records;
    int32_t ties;
    int32_t zero, low, high;
} es_mve_tail;

/* `weights`: per group of 4 output channels, chunks of `chunk` codes of each of them in turn, then
 * what is left of each; after the groups the rows of the last 1 to 3 channels. Up to 15 bytes
 * behind the end are read.
 * A record is 4 biases, 4 multipliers and 4 bytes of shifts. */
typedef struct {
    es_window window;
    es_mve_tail tail;
    const int8_t *weights;
    int32_t depth;   /* products per sum: kernel_height * kernel_width * in_channels */
    int32_t pixels;  /* output positions per step: 2, or 1 to halve the scratch */
    int32_t in_zero;
} es_mve_conv_args;

/* `weights`: per block of 16 channels, [taps][16], zeros where there are no more channels. A record
 * is 16 biases, 16 multipliers and 16 bytes of shifts, channel 4 i + j at 4 j + i.
 * Where `span` pixels of less than 16 channels fill a vector, each has its copy of everything. */
typedef struct {
    es_window window;
    es_mve_tail tail;
    const int8_t *weights;
    const int32_t *offsets; /* [taps], bytes from the first one where all are inside the input */
    int32_t span;           /* neighbouring output positions computed at once */
    int32_t in_zero;
} es_mve_depthwise_args;

/* A 3x3 window of dilation 1 and stride 1 or 2 along rows, over 4 n channels.
 * `weights`: per channel the columns of the window, each 3 codes and a zero, then 4 zeros; in
 * front of all of them 4 zeros. Records are those of convolutions. */
typedef struct {
    es_window window;
    es_mve_tail tail; /* `ties` is not ES_MVE_MIXED */
    const int8_t *weights;
    int32_t in_zero;
} es_mve_depthwise_3x3_args;

/* scratch: pixels * depth bytes. The `_pointwise` ones take 1x1 windows of stride 1 without
 * padding and need none. `_s4` take weights of 4 bits. */
void es_mve_conv_s8(const es_mve_conv_args *args, const int8_t *in, int8_t *out, int8_t *scratch);
void es_mve_conv_s4(const es_mve_conv_args *args, const int8_t *in, int8_t *out, int8_t *scratch);
void es_mve_pointwise_s8(const es_mve_conv_args *args, const int8_t *in, int8_t *out);
void es_mve_pointwise_s4(const es_mve_conv_args *args, const int8_t *in, int8_t *out);

/* 16-bit activations with zero points 0, 8-bit weights in plain rows. The window counts bytes: its
 * channels, and `depth`, are twice as many. A record is one channel's 64-bit bias, multiplier and
 * shift; `ties` is 1 where sums wrap to 32 bits, and 0 where they have 64. */
void es_mve_conv_s16(const es_mve_conv_args *args, const int16_t *in, int16_t *out,
                     int16_t *scratch);
void es_mve_pointwise_s16(const es_mve_conv_args *args, const int16_t *in, int16_t *out);

/* `depth` is at most 16, output channels come in fours, `ties` is not ES_MVE_MIXED. */
void es_mve_pointwise_narrow_s8(const es_mve_conv_args *args, const int8_t *in, int8_t *out);

/* scratch: in_channels bytes rounded up to 16, then taps words. `_s4` first unpacks the weights, of
 * which each 16 bytes hold 32 codes: 16 in low halves, then 16 in high ones; scratch begins with
 * them, in whole 32s. */
void es_mve_depthwise_s8(const es_mve_depthwise_args *args, const int8_t *in, int8_t *out,
                         int8_t *scratch);
void es_mve_depthwise_s4(const es_mve_depthwise_args *args, const int8_t *in, int8_t *out,
                         int8_t *scratch);

/* scratch: four channels' columns of three codes, see `es_mve_columns`. */
void es_mve_depthwise_3x3_s8(const es_mve_depthwise_3x3_args *args, const int8_t *in, int8_t *out,
                             int8_t *scratch);

void es_mve_add_affine_s8(const es_add_affine_s8_args *args, const int8_t *a, const int8_t *b,
                          int8_t *out);

#endif
