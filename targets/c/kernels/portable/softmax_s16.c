#include "es_common.h"
#include "es_reciprocal.h"
#include "es_softmax.h"
#include "es_table.h"

#define ES_CODE int16_t

#include "es_row_max.h"

void es_softmax_s16(const es_softmax_s16_args *args, const int16_t *in, int16_t *out)
{
    const int32_t depth = args->depth;
    for (int32_t rows = args->rows; rows > 0; --rows) {
        const int32_t most = es_row_max(in, depth);
        uint32_t sum = 0;
        for (int32_t i = 0; i < depth; ++i) {
            const int32_t steps = es_requantize(in[i] - most, args->multiplier, args->shift);
            const int32_t exp = es_interpolated(args->exp, es_clamp(steps, -65535, 0) + 32767);
            out[i] = (int16_t)exp;
            sum += (uint32_t)exp;
        }
        const int32_t headroom = es_leading_zeros(sum);
        const uint32_t shifted = ((sum << (headroom - 1)) + (1u << 13)) >> 14;
        const int32_t centred = es_clamp((int32_t)shifted - (1 << 15) - (1 << 16), -32768, 32767);
        const int32_t reciprocal = es_interpolated(args->reciprocal, centred);
        const int32_t right = 31 - headroom;
        for (int32_t i = 0; i < depth; ++i) {
            const int32_t product = out[i] * reciprocal + (1 << (right - 1));
            out[i] = (int16_t)es_clamp(product >> right, 0, 32767);
        }
        in += depth;
        out += depth;
    }
}
