/* Layer normalization of rows; include it after defining
 *     ES_KERNEL    the kernel's name,
 *     ES_CODE      type of the elements,
 *     ES_SQUARES   type that holds the sum of a row's squares,
 *     ES_SATURATE  saturates to the range of ES_CODE. */

/* Codes of a row from its deviations and their common factor root * 2^-right. */
static ES_NOINLINE void es_finish_row(const es_layer_norm_args *args, const ES_CODE *in,
                                      int32_t sum, int32_t root, int32_t right, ES_CODE *out)
{
    const int32_t depth = args->depth, shift = args->shift;
    const int32_t *gain = args->gain, *offset = args->offset;
    const ES_CODE *const end = in + depth;
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
        *out++ = (ES_CODE)ES_SATURATE(scaled >> shift);
    }
}

void ES_KERNEL(const es_layer_norm_args *args, const ES_CODE *in, ES_CODE *out)
{
    const int32_t depth = args->depth;
    for (int32_t rows = args->rows; rows > 0; --rows) {
        int32_t sum = 0;
        ES_SQUARES squares = 0;
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
        es_finish_row(args, in, sum, root, 41 - (args->extra_bits + zeros) / 2, out);
        in += depth;
        out += depth;
    }
}
