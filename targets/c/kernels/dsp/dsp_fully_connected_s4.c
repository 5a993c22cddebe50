/* The kernel in this format; what it does is in the file of its family. */
#include "es_dsp_core.h"

void es_dsp_fully_connected_s4(const es_dsp_fully_connected_args *args, const void *input,
                               void *output)
{
    es_dsp_fully_connected(args, input, output, NULL, &es_dsp_row_s4);
}

/* A depth that is no multiple of 4: through scratch of whole words. */
void es_dsp_fully_connected_padded_s4(const es_dsp_fully_connected_args *args,
                                      const void *input, void *output, void *scratch)
{
    es_dsp_fully_connected(args, input, output, scratch, &es_dsp_row_s4);
}
