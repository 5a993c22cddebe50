#include "es_common.h"
#include "es_mve_core.h"

void es_mve_depthwise_s4(const es_mve_depthwise_args *args, const int8_t *in, int8_t *out,
                         int8_t *scratch)
{
    const es_window *w = &args->window;
    const int32_t blocks = (w->in_channels + 15) / 16;
    const int32_t chunks = (blocks * w->kernel_height * w->kernel_width + 1) / 2;
    es_mve_depthwise_args unpacked = *args;
    const int8_t *from = args->weights;
    unpacked.weights = scratch;
    for (int32_t i = 0; i < chunks; ++i) {
        const int8x16_t pairs = vldrbq_s8(from);
        vstrbq_s8(scratch, vshrq_n_s8(vshlq_n_s8(pairs, 4), 4));
        vstrbq_s8(scratch + 16, vshrq_n_s8(pairs, 4));
        from += 16;
        scratch += 32;
    }
    es_mve_depthwise_s8(&unpacked, in, out, scratch);
}
