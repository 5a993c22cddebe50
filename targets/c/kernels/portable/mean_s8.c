#include "es_pool.h"
#include "es_sum.h"

#define ES_CODE int8_t

#include "es_mean_sum.h"

static int8_t mean(const es_mean_args *args, int32_t sum)
{
    const int32_t scaled = es_requantize(sum - args->offset, args->multiplier, args->shift);
    return es_code_s8(scaled, args->zero);
}

#if ES_DSP
/* Four outputs over one reduced axis of at most ES_SUM_LIMIT positions. */
static void four_means(const es_mean_args *args, const int8_t *in, int8_t *out)
{
    es_sums sums = {0, 0};
    for (int32_t k = args->reduced[2]; k > 0; --k) {
        sums = es_plus_word(sums, es_load_word(in));
        in += args->reduced_step[2];
    }
    int32_t sum[4];
    es_unpack_sums(sums, sum);
    for (int32_t k = 0; k < 4; ++k) {
        out[k] = mean(args, sum[k]);
    }
}
#endif

void es_mean_s8(const es_mean_args *args, const int8_t *in, int8_t *out)
{
    const int32_t *const size = args->kept, *const step = args->kept_step;
#if ES_DSP
    const int32_t plain = step[2] == 1 && args->reduced[0] == 1 && args->reduced[1] == 1 &&
                          args->reduced[2] <= ES_SUM_LIMIT;
#endif
    for (int32_t i = 0; i < size[0]; ++i) {
        for (int32_t j = 0; j < size[1]; ++j) {
            const int8_t *x = in + i * step[0] + j * step[1];
            int32_t c = 0;
#if ES_DSP
            for (; plain && c + 4 <= size[2]; c += 4) {
                four_means(args, x + c, out);
                out += 4;
            }
#endif
            for (; c < size[2]; ++c) {
                *out++ = mean(args, es_sum_at(args, x + c * step[2]));
            }
        }
    }
}
