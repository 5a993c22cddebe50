#include "es_norm.h"
#include "es_root.h"

/* Codes of a row from its deviations and their common factor root * 2^-right. */
static ES_NOINLINE void finish(const es_layer_norm_args *args, const int8_t *in, int32_t sum,
                               int32_t root, int32_t right, int8_t *out)
{
    const int32_t depth = args->depth, shift = args->shift;
    const int32_t *gain = args->gain, *offset = args->offset;
    const int8_t *const end = in + depth;
    while (in != end) {
        const int32_t deviation = *in++ * depth - sum;
        int32_t normal;
        if (right <= 32) {
            normal = es_plus_high(0, es_shift_left(deviation, 32 - right), root);
        } else {
            /* The rounding half is a multiple of 2^32, so low words do not matter. */
            const int32_t high = (int32_t)(((int64_t)deviation * root) >> 32);
            normal = (high + (1 << (right - 33))) >> (right - 32);
        }
        const int32_t scaled = es_plus_high(*offset++, normal, *gain++);
        *out++ = (int8_t)es_saturate_s8(scaled >> shift);
    }
}

void es_layer_norm_s8(const es_layer_norm_args *args, const int8_t *in, int8_t *out)
{
    const int32_t depth = args->depth;
    for (int32_t rows = args->rows; rows > 0; --rows) {
        int32_t sum = 0;
        int32_t squares = 0;
        for (int32_t i = 0; i < depth; ++i) {
            sum += in[i];
            squares += in[i] * in[i];
        }
        const int64_t least = (int64_t)1 << args->extra_bits;
        int64_t spread = (int64_t)squares * depth - (int64_t)sum * sum;
        spread = spread * least + args->epsilon;
        const uint64_t value = (uint64_t)(spread > least ? spread : least);
        const int32_t zeros = es_leading_zeros_64(value) & ~1;
        const int32_t root = (int32_t)es_reciprocal_root((uint32_t)(value << zeros >> 32));
        finish(args, in, sum, root, 41 - (args->extra_bits + zeros) / 2, out);
        in += depth;
        out += depth;
    }
}
