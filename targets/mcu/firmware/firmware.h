/* What startup code, semihosting and the two main programs share. */
#ifndef FIRMWARE_H
#define FIRMWARE_H

#include <stdint.h>

/* Exit statuses of an emulated run; anything else is a signal or QEMU's own. */
enum {
    FIRMWARE_OK = 0,
    FIRMWARE_INVOKE_FAILED = 80,
    FIRMWARE_NO_INPUTS = 81,
    FIRMWARE_NO_OUTPUTS = 82,
    FIRMWARE_STACK_OVERFLOW = 83,
    FIRMWARE_FAULT = 84
};

/* What every free stack word is painted with. */
#define STACK_PAINT 0xC5C5C5C5u

/* Bounds of the stack, from the linker script. */
extern uint32_t stack_limit[];
extern uint32_t stack_top[];

/* Paint the stack from its limit up to the stack pointer of the caller. */
void stack_paint(void);

int main(void);

/* Defined by each main program: how to end, and what to do about a fault.
   `frame` is where the core saved r0-r3, r12, lr, pc, xpsr, or lies outside of the stack. */
void firmware_exit(int status) __attribute__((noreturn));
void firmware_fault(const uint32_t *frame) __attribute__((noreturn));

/* Arm semihosting: calls that the debugger or emulator answers at BKPT 0xAB. */
int semihosting_open_read(const char *name);
int semihosting_open_write(const char *name);
long semihosting_length(int handle);
/* 0 when all bytes were transferred. */
int semihosting_read(int handle, void *data, uint32_t bytes);
int semihosting_write(int handle, const void *data, uint32_t bytes);
int semihosting_close(int handle);
void semihosting_print(const char *text);
void semihosting_print_hex(const char *label, uint32_t value);
void semihosting_exit(int status) __attribute__((noreturn));

#endif
