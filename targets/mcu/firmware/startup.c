/* Vector table and reset handler for ARMv6-M to ARMv8.1-M, no vendor code. */
#include "firmware.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CCR 0xE000ED14u   /* configuration and control */
#define CPACR 0xE000ED88u /* coprocessor access control */
#define CCR_UNALIGN_TRP (1u << 3)
#define CPACR_FPU (0xFu << 20) /* CP10 and CP11: FPU, and MVE where there is one */

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[];

void reset_handler(void) __attribute__((noreturn));
void fault_handler(void);

typedef union {
    void (*handler)(void);
    uint32_t *stack;
} vector;

/* Initial stack pointer, reset, and the 14 system exceptions; no interrupt is ever enabled. */
const vector vectors[16] __attribute__((section(".vectors"), used)) = {
    {.stack = stack_top},       {.handler = reset_handler}, {.handler = fault_handler},
    {.handler = fault_handler}, {.handler = fault_handler}, {.handler = fault_handler},
    {.handler = fault_handler}, {.handler = fault_handler}, {.handler = fault_handler},
    {.handler = fault_handler}, {.handler = fault_handler}, {.handler = fault_handler},
    {.handler = fault_handler}, {.handler = fault_handler}, {.handler = fault_handler},
    {.handler = fault_handler},
};

/* In assembly because it may not use the stack that it paints. */
__attribute__((naked)) void stack_paint(void)
{
    __asm volatile(".syntax unified\n"
                   "ldr r0, =stack_limit\n"
                   "ldr r1, =0xC5C5C5C5\n"
                   "mov r2, sp\n"
                   "1: cmp r0, r2\n"
                   "bhs 2f\n"
                   "str r1, [r0]\n"
                   "adds r0, #4\n"
                   "b 1b\n"
                   "2: bx lr\n"
                   ".ltorg\n");
}

/* A fresh stack first: the fault may have been an overflow. */
__attribute__((naked)) void fault_handler(void)
{
    __asm volatile("mov r0, sp\n"
                   "ldr r1, =stack_top\n"
                   "mov sp, r1\n"
                   "ldr r1, =firmware_fault\n"
                   "bx r1\n"
                   ".ltorg\n");
}

void reset_handler(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    REGISTER(CPACR) |= CPACR_FPU;
    __asm volatile("dsb\n"
                   "isb\n");
#endif
#if defined(__ARM_ARCH_6M__)
    /* The emulated core may be a larger one; make it refuse what ARMv6-M refuses. */
    REGISTER(CCR) |= CCR_UNALIGN_TRP;
#endif
    stack_paint();
    const uint32_t *load = data_load;
    for (uint32_t *word = data_start; word < data_end; ++word) {
        *word = *load++;
    }
    for (uint32_t *word = bss_start; word < bss_end; ++word) {
        *word = 0;
    }
    firmware_exit(main());
}
