/* 3 x 3 depthwise convolution of stride 1, int4 weights. */
#include "es_dsp_asm_3x3.h"
#include "es_dsp_core.h"

es_dsp_plane_run es_dsp_depthwise_3x3_s4_run;
void es_dsp_depthwise_3x3_s4_run_tail(void);

static const es_dsp_plane_core core = {
    .run = es_dsp_depthwise_3x3_s4_run,
    .tail = es_dsp_depthwise_3x3_s4_run_tail,
    .step_code = 72,
    .step_columns = 2,
};

/* clang-format off */
__asm__(
    ES_ASM_3X3_FRAME
    ES_ASM_3X3_WEIGHTS_S4
    ES_ASM_3X3_STRIDE1
    ES_ASM_3X3_RUN(es_dsp_depthwise_3x3_s4_run)
    ".text\n"
);
/* clang-format on */

void es_dsp_depthwise_3x3_s4(const es_dsp_depthwise_args *args, const void *input, void *output,
                             void *scratch)
{
    es_dsp_depthwise(args, input, output, scratch, &core);
}
