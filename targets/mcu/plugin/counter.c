/* QEMU TCG plugin: how often every block of instructions ran, between named addresses.

   Written from QEMU's documentation ("QEMU TCG Plugins", docs/devel/tcg-plugins); its header
   is not packaged by distributions, so the few functions in use are declared here. Only
   functions that are alike in plugin API versions 1 (QEMU 6 to 8) and later are used;
   PLUGIN_API says which version the loading QEMU accepts.

   Arguments, files relative to the working folder of QEMU:
     watch=FILE   addresses in hexadecimal, ascending, one a line: each begins a segment
     out=FILE     where the counts go

   A block is a translation block: it is entered at its first instruction only and, on a core
   without interrupts, runs to its last. So one callback per block counts every instruction.
   An instruction that its IT block skips counts as executed. Segment 0 lasts until the
   first watched address is reached, segment i+1 from reaching address i until the next one.

   Output, text:
     hit SEGMENT TOTAL                 instructions executed before a watched address was reached
     block ADDRESS SIZES               a block: hexadecimal address, a digit of bytes for each
     count SEGMENT EXECUTED TAKEN      of that block; TAKEN: not followed by the next address
     inside ADDRESS                    a watched address that does not begin a block: counts fail
     gap ADDRESS                       an instruction was expected there: counts fail
     total TOTAL                       last line */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PLUGIN_API
#define PLUGIN_API 1
#endif

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_callback)(plugin_id id, struct qemu_plugin_tb *block);
typedef void (*executed_callback)(unsigned int cpu, void *data);
typedef void (*exit_callback)(plugin_id id, void *data);
enum { WITHOUT_REGISTERS = 0 };

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block,
                                                        size_t index);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
extern void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *instruction);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translated_callback callback);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block,
                                                 executed_callback callback, int flags,
                                                 void *data);
extern void qemu_plugin_register_atexit_cb(plugin_id id, exit_callback callback, void *data);

EXPORT int qemu_plugin_version = PLUGIN_API;
EXPORT int qemu_plugin_install(plugin_id id, const void *information, int argc, char **argv);

typedef struct {
    uint64_t executed;
    uint64_t taken;
} tally;

typedef struct block {
    struct block *next;
    uint64_t start;
    uint64_t end;
    size_t instructions;
    size_t segment; /* that it begins; 0: none */
    char *sizes;
    tally *tallies; /* by segment */
} block;

typedef struct {
    size_t segment;
    uint64_t total;
} hit;

static uint64_t *watched;
static size_t watched_count;
static FILE *output;
static block *blocks;
static block **last_block = &blocks;
static hit *hits;
static size_t hit_count, hit_capacity;

static uint64_t total;
static uint64_t expected; /* the address after the block that ran last */
static uint64_t nobody;
static uint64_t *taken_there = &nobody;
static size_t segment;

static void *checked(void *memory)
{
    if (memory == NULL) {
        fputs("counter: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* The segment that begins at an address; 0 where none does. */
static size_t segment_at(uint64_t address)
{
    size_t low = 0, high = watched_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (watched[middle] < address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < watched_count && watched[low] == address ? low + 1 : 0;
}

/* Bytes of a Thumb instruction: 4 if its first halfword begins with 0b11101, 0b11110 or 0b11111.
   QEMU's own answer is 2 too many where, near the end of a page, it looked at what follows. */
static size_t size_of(const struct qemu_plugin_insn *instruction)
{
    const unsigned char *const bytes = qemu_plugin_insn_haddr(instruction);
    if (bytes == NULL) {
        return qemu_plugin_insn_size(instruction);
    }
    return bytes[1] >> 3 >= 0x1d ? 4 : 2;
}

static void on_block(unsigned int cpu, void *data)
{
    block *const each = data;
    (void)cpu;
    *taken_there += each->start != expected;
    each->tallies[segment].executed += 1;
    taken_there = &each->tallies[segment].taken;
    expected = each->end;
    total += each->instructions;
}

static void on_watched_block(unsigned int cpu, void *data)
{
    if (hit_count == hit_capacity) {
        hit_capacity = hit_capacity ? 2 * hit_capacity : 1024;
        hits = checked(realloc(hits, hit_capacity * sizeof *hits));
    }
    segment = ((block *)data)->segment;
    hits[hit_count].segment = segment;
    hits[hit_count].total = total;
    hit_count += 1;
    on_block(cpu, data);
}

static void on_translated(plugin_id id, struct qemu_plugin_tb *translated)
{
    block *const each = checked(calloc(1, sizeof *each));
    (void)id;
    each->start = qemu_plugin_tb_vaddr(translated);
    each->end = each->start;
    each->instructions = qemu_plugin_tb_n_insns(translated);
    each->segment = segment_at(each->start);
    each->sizes = checked(calloc(each->instructions + 1, 1));
    each->tallies = checked(calloc(watched_count + 1, sizeof *each->tallies));
    for (size_t index = 0; index < each->instructions; ++index) {
        struct qemu_plugin_insn *const one = qemu_plugin_tb_get_insn(translated, index);
        const size_t size = size_of(one);
        if (qemu_plugin_insn_vaddr(one) != each->end) {
            fprintf(output, "gap %" PRIx64 "\n", each->end);
        }
        if (index > 0 && segment_at(each->end) != 0) {
            fprintf(output, "inside %" PRIx64 "\n", each->end);
        }
        each->sizes[index] = (char)('0' + size);
        each->end += size;
    }
    *last_block = each;
    last_block = &each->next;
    qemu_plugin_register_vcpu_tb_exec_cb(
        translated, each->segment ? on_watched_block : on_block, WITHOUT_REGISTERS, each);
}

static void on_exit_write(plugin_id id, void *data)
{
    (void)id;
    (void)data;
    for (size_t index = 0; index < hit_count; ++index) {
        fprintf(output, "hit %zu %" PRIu64 "\n", hits[index].segment, hits[index].total);
    }
    for (const block *each = blocks; each != NULL; each = each->next) {
        fprintf(output, "block %" PRIx64 " %s\n", each->start, each->sizes);
        for (size_t index = 0; index <= watched_count; ++index) {
            const tally *const one = &each->tallies[index];
            if (one->executed) {
                fprintf(output, "count %zu %" PRIu64 " %" PRIu64 "\n", index, one->executed,
                        one->taken);
            }
        }
    }
    fprintf(output, "total %" PRIu64 "\n", total);
    fclose(output);
}

static int read_watched(const char *name)
{
    FILE *const file = fopen(name, "r");
    size_t capacity = 0;
    uint64_t address;
    if (file == NULL) {
        return 1;
    }
    while (fscanf(file, "%" SCNx64, &address) == 1) {
        if (watched_count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            watched = checked(realloc(watched, capacity * sizeof *watched));
        }
        watched[watched_count++] = address;
    }
    return fclose(file);
}

int qemu_plugin_install(plugin_id id, const void *information, int argc, char **argv)
{
    (void)information;
    for (int index = 0; index < argc; ++index) {
        if (strncmp(argv[index], "watch=", 6) == 0 && read_watched(argv[index] + 6) != 0) {
            fprintf(stderr, "counter: cannot read %s\n", argv[index] + 6);
            return 1;
        }
        if (strncmp(argv[index], "out=", 4) == 0) {
            output = fopen(argv[index] + 4, "w");
        }
    }
    if (output == NULL) {
        fputs("counter: out=FILE is missing or cannot be written\n", stderr);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    qemu_plugin_register_atexit_cb(id, on_exit_write, NULL);
    return 0;
}
