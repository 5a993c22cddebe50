/* 3 x 3 depthwise convolution of stride 2, int8 weights. */
#include "es_dsp_asm_3x3.h"
#include "es_dsp_core.h"

es_dsp_plane_run es_dsp_depthwise_3x3_stride2_s8_run;
void es_dsp_depthwise_3x3_stride2_s8_run_tail(void);

static const es_dsp_plane_core core = {
    .run = es_dsp_depthwise_3x3_stride2_s8_run,
    .tail = es_dsp_depthwise_3x3_stride2_s8_run_tail,
    .step_code = 44,
    .step_columns = 1,
};

/* clang-format off */
__asm__(
    ES_ASM_3X3_FRAME
    ES_ASM_3X3_WEIGHTS_S8
    ES_ASM_3X3_STRIDE2
    ES_ASM_3X3_RUN(es_dsp_depthwise_3x3_stride2_s8_run)
    ".text\n"
);
/* clang-format on */

void es_dsp_depthwise_3x3_stride2_s8(const es_dsp_depthwise_args *args, const void *input,
                                     void *output, void *scratch)
{
    es_dsp_depthwise(args, input, output, scratch, &core);
}
