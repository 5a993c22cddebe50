/* Runs a generated network on this machine: inputs.bin -> outputs.bin, and trace.bin if traced.
 *
 * inputs.bin holds the codes of every input of every sample, one after the other; outputs.bin the
 * same of outputs; trace.bin has records {uint32 tensor, uint32 bytes, codes}. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

enum { BAD_INPUTS = 2, BAD_OUTPUTS = 3, INVOKE_FAILED = 4 };

#ifdef MODEL_TRACE
static FILE *trace;

void model_trace(int tensor, const void *data, unsigned long bytes)
{
    const uint32_t head[2] = {(uint32_t)tensor, (uint32_t)bytes};
    if (fwrite(head, sizeof head, 1, trace) != 1 || fwrite(data, 1, bytes, trace) != bytes) {
        exit(BAD_OUTPUTS);
    }
}
#endif

static int run(FILE *from, FILE *to)
{
    const void *inputs[MODEL_NUM_INPUTS];
    void *outputs[MODEL_NUM_OUTPUTS];
    for (;;) {
        for (int i = 0; i < MODEL_NUM_INPUTS; ++i) {
            const size_t bytes = model_input_bytes(i);
            const size_t got = fread(model_input(i), 1, bytes, from);
            if (got != bytes) {
                return i == 0 && got == 0 && feof(from) ? 0 : BAD_INPUTS;
            }
            inputs[i] = model_input(i);
        }
        for (int i = 0; i < MODEL_NUM_OUTPUTS; ++i) {
            outputs[i] = model_output(i);
        }
        if (model_invoke(inputs, outputs) != 0) {
            return INVOKE_FAILED;
        }
        for (int i = 0; i < MODEL_NUM_OUTPUTS; ++i) {
            const size_t bytes = model_output_bytes(i);
            if (fwrite(model_output(i), 1, bytes, to) != bytes) {
                return BAD_OUTPUTS;
            }
        }
    }
}

int main(void)
{
    FILE *from = fopen("inputs.bin", "rb");
    FILE *to = fopen("outputs.bin", "wb");
#ifdef MODEL_TRACE
    trace = fopen("trace.bin", "wb");
    if (trace == NULL) {
        return BAD_OUTPUTS;
    }
#endif
    if (from == NULL || to == NULL) {
        return BAD_INPUTS;
    }
    const int status = run(from, to);
    fclose(from);
#ifdef MODEL_TRACE
    if (fclose(trace) != 0) {
        return BAD_OUTPUTS;
    }
#endif
    return fclose(to) == 0 ? status : BAD_OUTPUTS;
}
