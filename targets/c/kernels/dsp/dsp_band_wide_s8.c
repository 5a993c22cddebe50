/* The kernel in this format; what it does is in the file of its family. */
#include "es_dsp_core.h"

void es_dsp_band_wide_s8(const es_dsp_band_args *args, const void *input, void *output, void *scratch)
{
    es_dsp_band(args, input, output, scratch, &es_dsp_matrix_wide_s8);
}
