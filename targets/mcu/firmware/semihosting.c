/* Files and exit through Arm semihosting ("Semihosting for AArch32 and AArch64", Arm IHI 0098),
   so that a firmware image reads its inputs from the host without a C library's stdio. */
#include "firmware.h"

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_FLEN = 0x0C,
    SYS_EXIT_EXTENDED = 0x20
};

enum { MODE_READ_BINARY = 1, MODE_WRITE_BINARY = 5 };

#define STOPPED_APPLICATION_EXIT 0x20026u

static int32_t call(uint32_t operation, uintptr_t argument)
{
    register uint32_t r0 __asm("r0") = operation;
    register uintptr_t r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

static uint32_t length_of(const char *text)
{
    uint32_t length = 0;
    while (text[length] != '\0') {
        ++length;
    }
    return length;
}

static int open_as(const char *name, uint32_t mode)
{
    const uintptr_t block[] = {(uintptr_t)name, mode, length_of(name)};
    return (int)call(SYS_OPEN, (uintptr_t)block);
}

int semihosting_open_read(const char *name)
{
    return open_as(name, MODE_READ_BINARY);
}

int semihosting_open_write(const char *name)
{
    return open_as(name, MODE_WRITE_BINARY);
}

long semihosting_length(int handle)
{
    const uintptr_t block[] = {(uintptr_t)handle};
    return (long)call(SYS_FLEN, (uintptr_t)block);
}

int semihosting_read(int handle, void *data, uint32_t bytes)
{
    const uintptr_t block[] = {(uintptr_t)handle, (uintptr_t)data, bytes};
    return (int)call(SYS_READ, (uintptr_t)block);
}

int semihosting_write(int handle, const void *data, uint32_t bytes)
{
    const uintptr_t block[] = {(uintptr_t)handle, (uintptr_t)data, bytes};
    return (int)call(SYS_WRITE, (uintptr_t)block);
}

int semihosting_close(int handle)
{
    const uintptr_t block[] = {(uintptr_t)handle};
    return (int)call(SYS_CLOSE, (uintptr_t)block);
}

void semihosting_print(const char *text)
{
    (void)call(SYS_WRITE0, (uintptr_t)text);
}

void semihosting_print_hex(const char *label, uint32_t value)
{
    char text[12] = "0x00000000\n";
    for (int digit = 9; digit > 1; --digit) {
        const uint32_t nibble = value & 0xFu;
        text[digit] = (char)(nibble < 10u ? '0' + nibble : 'a' + nibble - 10u);
        value >>= 4;
    }
    semihosting_print(label);
    semihosting_print(text);
}

void semihosting_exit(int status)
{
    const uintptr_t block[] = {STOPPED_APPLICATION_EXIT, (uintptr_t)status};
    (void)call(SYS_EXIT_EXTENDED, (uintptr_t)block);
    for (;;) {
    }
}
