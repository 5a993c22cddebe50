/* Pooling and means. Tensors are channels-last. */
#ifndef ES_POOL_H
#define ES_POOL_H

#include <stdint.h>

/* Windows are cut to the input; what lies outside neither counts nor wins. */
typedef struct {
    int32_t batch;
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t pad_top, pad_left;
    int32_t low, high;
} es_pool_args;

void es_average_pool_s8(const es_pool_args *args, const int8_t *in, int8_t *out);
void es_average_pool_s16(const es_pool_args *args, const int16_t *in, int16_t *out);
void es_max_pool_s8(const es_pool_args *args, const int8_t *in, int8_t *out);
void es_max_pool_s16(const es_pool_args *args, const int16_t *in, int16_t *out);

#define ES_MEAN_AXES 3

/* out = saturate(requantize(sum - offset) + zero). The output is dense over the `kept` axes, the
 * innermost last; sums run over the `reduced` ones. Steps are in elements of the input. */
typedef struct {
    int32_t kept[ES_MEAN_AXES], kept_step[ES_MEAN_AXES];
    int32_t reduced[ES_MEAN_AXES], reduced_step[ES_MEAN_AXES];
    int32_t offset;
    int32_t multiplier, shift;
    int32_t zero; /* of int8 codes; int16 ones have none */
} es_mean_args;

void es_mean_s8(const es_mean_args *args, const int8_t *in, int8_t *out);
void es_mean_s16(const es_mean_args *args, const int16_t *in, int16_t *out);

#endif
