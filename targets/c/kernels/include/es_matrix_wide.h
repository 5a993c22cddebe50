/* What the matrix kernels for 16-bit activations share. */
#ifndef ES_MATRIX_WIDE_H
#define ES_MATRIX_WIDE_H

#include "es_common.h"
#include "es_matrix.h"

/* Output codes of `count` channels from `channel` on, from their sums without bias. */
static void es_finish_s16(const es_tail *tail, const int64_t *bias, int32_t narrow,
                          int32_t channel, int32_t count, const int64_t *sums, int16_t *out)
{
    for (int32_t c = channel; c < channel + count; ++c) {
        const int64_t sum = *sums++ + bias[c];
        const int32_t k = c * tail->per_channel;
        const int32_t scaled =
            narrow ? es_requantize((int32_t)(uint64_t)sum, tail->multiplier[k], tail->shift[k])
                   : es_requantize_wide(sum, tail->multiplier[k], tail->shift[k]);
        *out++ = (int16_t)(es_clamp(scaled, tail->low, tail->high) + tail->zero);
    }
}

#endif
