/* Layer normalization of rows; the algebra and its bounds are the reference executor's. */
#ifndef ES_NORM_H
#define ES_NORM_H

#include <stdint.h>

typedef struct {
    int32_t rows, depth;
    int32_t extra_bits; /* fraction bits of the variance */
    int64_t epsilon;    /* depth^2 epsilon / scale^2 with that many fraction bits */
    const int32_t *gain, *offset; /* [depth] */
    int32_t shift;
} es_layer_norm_args;

void es_layer_norm_s8(const es_layer_norm_args *args, const int8_t *in, int8_t *out);
void es_layer_norm_s16(const es_layer_norm_args *args, const int16_t *in, int16_t *out);

#endif
