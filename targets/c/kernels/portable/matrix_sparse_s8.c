#include "es_expand.h"
#include "es_matrix_core.h"
#include "es_sparse.h"

void es_sparse_fully_connected_s8(const es_sparse_s8_args *args, const int8_t *in, int8_t *out)
{
    const uint32_t *present = args->stored;
    const int8_t *weight = (const int8_t *)(present + args->outputs * args->words);
    for (int32_t channel = 0; channel < args->outputs; channel += ES_STRIP) {
        uint32_t sums[ES_STRIP];
        const int32_t count = es_min(args->outputs - channel, ES_STRIP);
        for (int32_t k = 0; k < count; ++k) {
            const int8_t *x = in;
            uint32_t sum = (uint32_t)args->bias[channel + k];
            for (int32_t words = args->words; words > 0; --words) {
                const int8_t *at = x;
                for (uint32_t left = *present++; left != 0;) {
                    const int32_t gap = es_leading_zeros(left);
                    at += gap;
                    sum += (uint32_t)(*at++ * *weight++);
                    left = left << gap << 1;
                }
                x += ES_EXPAND_UNITS;
            }
            sums[k] = sum;
        }
        es_finish_s8(&args->tail, channel, count, sums, out + channel);
    }
}
