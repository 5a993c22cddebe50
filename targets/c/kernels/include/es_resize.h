/* Image resizing; tensors are channels-last. */
#ifndef ES_RESIZE_H
#define ES_RESIZE_H

#include <stdint.h>

/* `row[y]` and `column[x]` are the input's row and column that output y and x copy;
 * `pixel` is bytes. */
typedef struct {
    int32_t batch, in_height, in_width, out_height, out_width;
    int32_t pixel;
    const uint16_t *row;
    const uint16_t *column;
} es_resize_nearest_args;

void es_resize_nearest(const es_resize_nearest_args *args, const void *in, void *out);

/* Three numbers for every output row, and for every column: the two of the input that it lies
 * between, and how far from the first, in 1/1024. */
typedef struct {
    int32_t batch, in_height, in_width, out_height, out_width, channels;
    const uint16_t *row;
    const uint16_t *column;
} es_resize_bilinear_args;

void es_resize_bilinear_s8(const es_resize_bilinear_args *args, const int8_t *in, int8_t *out);
void es_resize_bilinear_s16(const es_resize_bilinear_args *args, const int16_t *in, int16_t *out);

#endif
