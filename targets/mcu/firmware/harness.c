/* Runs the model on every sample of `inputs.bin` and writes `outputs.bin` and `report.bin`.

   inputs.bin   per sample, the codes of each input
   outputs.bin  per sample, the codes of each output
   trace.bin    trace builds: per traced tensor, its index and size (uint32) and its bytes
   report.bin   uint32 samples, uint32 stack bytes that the model used at most */
#include "firmware.h"
#include "model.h"

/* Calls model_invoke. In assembly so that the instruction behind the call has a name: what
   executes between the entry of model_invoke and there is one inference, to the instruction. */
int harness_invoke(const void *const inputs[], void *const outputs[]);
__asm(".text\n"
      ".syntax unified\n"
      ".thumb\n"
      ".global harness_invoke\n"
      ".type harness_invoke, %function\n"
      ".thumb_func\n"
      "harness_invoke:\n"
      "    push {r4, lr}\n"
      "    bl model_invoke\n"
      ".global harness_return\n"
      ".type harness_return, %function\n"
      ".thumb_func\n"
      "harness_return:\n"
      "    pop {r4, pc}\n"
      ".size harness_invoke, . - harness_invoke\n");

/* The stack below the caller of harness_invoke, whose own 8 bytes are taken off. */
static uint32_t stack_used(const uint32_t *top)
{
    const uint32_t *word = stack_limit;
    while (word < top && *word == STACK_PAINT) {
        ++word;
    }
    return (uint32_t)(top - word) * 4u;
}

static const uint32_t *stack_pointer(void)
{
    uint32_t *sp;
    __asm volatile("mov %0, sp" : "=r"(sp));
    return sp;
}

void firmware_exit(int status)
{
    semihosting_exit(status);
}

static void fail(const char *what, int status) __attribute__((noreturn));

static void fail(const char *what, int status)
{
    semihosting_print(what);
    semihosting_exit(status);
}

void firmware_fault(const uint32_t *frame)
{
    uint32_t exception;
    __asm volatile("mrs %0, ipsr" : "=r"(exception));
    semihosting_print("fault: the core took an exception\n");
    semihosting_print_hex("fault: exception number ", exception);
    if (frame >= stack_limit && frame + 8 <= stack_top) {
        semihosting_print_hex("fault: at address ", frame[6]);
        semihosting_print_hex("fault: return address ", frame[5]);
    } else {
        semihosting_print("fault: the stack overflowed\n");
    }
#if !defined(__ARM_ARCH_6M__)
    semihosting_print_hex("fault: status register (CFSR) ", *(volatile uint32_t *)0xE000ED28u);
    semihosting_print_hex("fault: data address (BFAR) ", *(volatile uint32_t *)0xE000ED38u);
#endif
    semihosting_exit(FIRMWARE_FAULT);
}

#if defined(MODEL_TRACE)
static int trace_file;

void model_trace(int tensor, const void *data, unsigned long bytes);

void model_trace(int tensor, const void *data, unsigned long bytes)
{
    const uint32_t header[] = {(uint32_t)tensor, (uint32_t)bytes};
    if (semihosting_write(trace_file, header, sizeof header) != 0 ||
        semihosting_write(trace_file, data, (uint32_t)bytes) != 0) {
        fail("harness: cannot write trace.bin\n", FIRMWARE_NO_OUTPUTS);
    }
}
#endif

static int open_output(const char *name)
{
    const int file = semihosting_open_write(name);
    if (file < 0) {
        fail("harness: cannot write its output files\n", FIRMWARE_NO_OUTPUTS);
    }
    return file;
}

static void write_report(uint32_t samples, uint32_t stack_bytes)
{
    const uint32_t report[] = {samples, stack_bytes};
    const int file = open_output("report.bin");
    if (semihosting_write(file, report, sizeof report) != 0) {
        fail("harness: cannot write report.bin\n", FIRMWARE_NO_OUTPUTS);
    }
    (void)semihosting_close(file);
}

/* One inference; returns the stack bytes that it used. */
static uint32_t run_sample(int in, int out)
{
    const void *inputs[MODEL_NUM_INPUTS];
    void *outputs[MODEL_NUM_OUTPUTS];
    for (int index = 0; index < MODEL_NUM_INPUTS; ++index) {
        void *const place = model_input(index);
        if (semihosting_read(in, place, model_input_bytes(index)) != 0) {
            fail("harness: inputs.bin ends within a sample\n", FIRMWARE_NO_INPUTS);
        }
        inputs[index] = place;
    }
    for (int index = 0; index < MODEL_NUM_OUTPUTS; ++index) {
        outputs[index] = model_output(index);
    }
    stack_paint();
    if (harness_invoke(inputs, outputs) != 0) {
        fail("harness: model_invoke reported a failure\n", FIRMWARE_INVOKE_FAILED);
    }
    const uint32_t used = stack_used(stack_pointer());
    for (int index = 0; index < MODEL_NUM_OUTPUTS; ++index) {
        if (semihosting_write(out, outputs[index], model_output_bytes(index)) != 0) {
            fail("harness: cannot write outputs.bin\n", FIRMWARE_NO_OUTPUTS);
        }
    }
    return used > 8u ? used - 8u : 0u;
}

int main(void)
{
    uint32_t sample_bytes = 0;
    uint32_t stack_bytes = 0;
    const int in = semihosting_open_read("inputs.bin");
    if (in < 0) {
        fail("harness: cannot read inputs.bin\n", FIRMWARE_NO_INPUTS);
    }
    const int out = open_output("outputs.bin");
#if defined(MODEL_TRACE)
    trace_file = open_output("trace.bin");
#endif
    for (int index = 0; index < MODEL_NUM_INPUTS; ++index) {
        sample_bytes += model_input_bytes(index);
    }
    const uint32_t samples = (uint32_t)semihosting_length(in) / sample_bytes;
    for (uint32_t sample = 0; sample < samples; ++sample) {
        const uint32_t used = run_sample(in, out);
        stack_bytes = used > stack_bytes ? used : stack_bytes;
        if (stack_limit[0] != STACK_PAINT) {
            fail("harness: the stack overflowed\n", FIRMWARE_STACK_OVERFLOW);
        }
    }
    (void)semihosting_close(out);
    write_report(samples, stack_bytes);
    return FIRMWARE_OK;
}
