/* 3 x 3 depthwise convolution of stride 1, int4 weights: 30 instructions for two outputs. */
#include "es_dsp_asm_3x3.h"
#include "es_dsp_core.h"

es_dsp_plane_run es_dsp_depthwise_3x3_floored_s4;
void es_dsp_depthwise_3x3_floored_s4_even(void);
void es_dsp_depthwise_3x3_floored_s4_odd(void);
es_dsp_plane_run es_dsp_depthwise_3x3_rounded_s4;
void es_dsp_depthwise_3x3_rounded_s4_even(void);
void es_dsp_depthwise_3x3_rounded_s4_odd(void);

static const es_dsp_plane_core core = {
    .floored = es_dsp_depthwise_3x3_floored_s4,
    .rounded = es_dsp_depthwise_3x3_rounded_s4,
    .floored_after = {es_dsp_depthwise_3x3_floored_s4_even,
                      es_dsp_depthwise_3x3_floored_s4_odd},
    .rounded_after = {es_dsp_depthwise_3x3_rounded_s4_even,
                      es_dsp_depthwise_3x3_rounded_s4_odd},
    .step_columns = 2,
};

/* clang-format off */
__asm__(
    ES_ASM_3X3_FRAME
    ES_ASM_3X3_WEIGHTS_S4
    ES_ASM_3X3_HEAD
    ES_ASM_3X3_SCALE
);
__asm__(
    ES_ASM_3X3_STRIDE1(es_dsp_depthwise_3x3_floored_s4, 0)
    ".text\n"
);
__asm__(
    ES_ASM_3X3_STRIDE1(es_dsp_depthwise_3x3_rounded_s4, 1)
    ".text\n"
);
/* clang-format on */

void es_dsp_depthwise_3x3_s4(const es_dsp_depthwise_args *args, const void *input, void *output,
                             void *scratch)
{
    es_dsp_depthwise(args, input, output, scratch, &core);
}
