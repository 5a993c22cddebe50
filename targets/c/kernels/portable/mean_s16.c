#include "es_common.h"
#include "es_pool.h"

#define ES_CODE int16_t

#include "es_mean_sum.h"

static inline int16_t mean(const es_mean_args *args, int32_t sum)
{
    const int32_t scaled = es_requantize(sum - args->offset, args->multiplier, args->shift);
    return (int16_t)es_saturate_s16(scaled);
}

void es_mean_s16(const es_mean_args *args, const int16_t *in, int16_t *out)
{
    const int32_t *const size = args->kept, *const step = args->kept_step;
    for (int32_t i = 0; i < size[0]; ++i) {
        for (int32_t j = 0; j < size[1]; ++j) {
            const int16_t *x = in + i * step[0] + j * step[1];
            for (int32_t c = 0; c < size[2]; ++c) {
                *out++ = mean(args, es_sum_at(args, x + c * step[2]));
            }
        }
    }
}
