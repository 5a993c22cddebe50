/* The least that a program with the model is: its linked image gives the flash figures. */
#include "firmware.h"
#include "model.h"

void firmware_exit(int status)
{
    (void)status;
    for (;;) {
    }
}

void firmware_fault(const uint32_t *frame)
{
    (void)frame;
    for (;;) {
    }
}

int main(void)
{
    const void *inputs[MODEL_NUM_INPUTS];
    void *outputs[MODEL_NUM_OUTPUTS];
    for (int index = 0; index < MODEL_NUM_INPUTS; ++index) {
        inputs[index] = model_input(index);
    }
    for (int index = 0; index < MODEL_NUM_OUTPUTS; ++index) {
        outputs[index] = model_output(index);
    }
    return model_invoke(inputs, outputs);
}
