#include <stddef.h>

#include "es_common.h"
#include "es_mve_block.h"

/* Depthwise convolution along output rows. Of four channels at a time, columns of three input
 * codes become words. A vector of them holds four columns of one channel, and VMLADAV with the
 * window's columns gives an output: with stride 1, also the next one, by the weights a word later.
 *
 * One row of four channels; scratch has one plane of column words per channel. */
typedef struct {
    const int32_t *columns; /* at 0 */
    int32_t plane;          /* 4: bytes from a channel to the next */
    int8_t *out;            /* 8 */
    int32_t step;           /* 12: bytes from an output to the fourth after it */
    int32_t quads, left;    /* 16, 20: outputs in fours, and how many more */
    int32_t zero;           /* 24 */
    int32_t low, high;      /* 28, 32 */
    const int32_t *record;  /* 36 */
    const int8_t *weights;  /* 40 */
    int32_t channels;       /* 44: bytes from an output to the next */
} line;

_Static_assert(offsetof(line, channels) == 44, "the assembly knows these offsets");

/* r0 r2 r4 r6 sums, r1 columns, r3 out, r5 bias, r7 multiplier, r8 step, r9 zero, r10 shift,
 * r11 line, r12 channel; q3 q4 weights, q5 q6 limits, q7 where outputs go. */
#define STRIDE_1                        \
    "    vldrb.8    q0, [r1], #16\n"    \
    "    vmladav.s8 r0, q0, q3\n"       \
    "    vldrb.8    q1, [r1, #-8]\n"    \
    "    vmladav.s8 r2, q0, q4\n"       \
    "    vmladav.s8 r4, q1, q3\n"       \
    "    vmladav.s8 r6, q1, q4\n"
#define STRIDE_2                        \
    "    vldrb.8    q0, [r1], #32\n"    \
    "    vmladav.s8 r0, q0, q3\n"       \
    "    vldrb.8    q1, [r1, #-24]\n"   \
    "    vmladav.s8 r2, q1, q3\n"       \
    "    vldrb.8    q0, [r1, #-16]\n"   \
    "    vmladav.s8 r4, q0, q3\n"       \
    "    vldrb.8    q1, [r1, #-8]\n"    \
    "    vmladav.s8 r6, q1, q3\n"
#define HIDDEN ""
#define AWAY                            \
    "    vshr.s32   q0, q2, #31\n"      \
    "    vadd.i32   q2, q2, q0\n"
#define CODES(sums, ties)               \
    sums                                \
    "    vmov       q2[2], q2[0], r0, r4\n" \
    "    vmov       q2[3], q2[1], r2, r6\n" \
    "    vadd.i32   q2, q2, r5\n"       \
    "    vqrdmulh.s32 q2, q2, r7\n"     \
    ties                                \
    "    vrshl.s32  q2, r10\n"          \
    "    vadd.i32   q2, q2, r9\n"       \
    "    vmax.s32   q2, q2, q5\n"       \
    "    vmin.s32   q2, q2, q6\n"
#define ROW(sums, ties)                       \
    __asm volatile("    push       {r4-r11, lr}\n"          \
                   "    vpush      {d8-d15}\n"              \
                   "    mov        r11, r0\n"               \
                   "    movs       r0, #0\n"                \
                   "    vidup.u32  q7, r0, #1\n"            \
                   "    ldr        r1, [r11, #44]\n"        \
                   "    vmul.i32   q7, q7, r1\n"            \
                   "    ldrd       r0, r2, [r11, #28]\n"    \
                   "    vdup.32    q5, r0\n"                \
                   "    vdup.32    q6, r2\n"                \
                   "    ldr        r8, [r11, #12]\n"        \
                   "    ldr        r9, [r11, #24]\n"        \
                   "    mov        r12, #0\n"               \
                   "1:  ldrd       r0, r2, [r11, #36]\n"    \
                   "    add        r4, r0, r12\n"           \
                   "    ldrsb      r10, [r4, #32]\n"        \
                   "    ldr        r5, [r0, r12, lsl #2]\n" \
                   "    adds       r0, #16\n"               \
                   "    ldr        r7, [r0, r12, lsl #2]\n" \
                   "    add        r2, r2, r12, lsl #4\n"   \
                   "    vldrb.8    q3, [r2]\n"              \
                   "    vldrb.8    q4, [r2, #-4]\n"         \
                   "    ldrd       r1, r2, [r11]\n"         \
                   "    mla        r1, r2, r12, r1\n"       \
                   "    ldr        r3, [r11, #8]\n"         \
                   "    add        r3, r12\n"               \
                   "    ldr        lr, [r11, #16]\n"        \
                   "    wls        lr, lr, 3f\n"            \
                   "2:\n" CODES(sums, ties)                 \
                   "    vstrb.32   q2, [r3, q7]\n"          \
                   "    add        r3, r8\n"                \
                   "    le         lr, 2b\n"                \
                   "3:  ldr        r0, [r11, #20]\n"        \
                   "    cbz        r0, 4f\n" CODES(sums, ties) \
                   "    ldr        r0, [r11, #20]\n"        \
                   "    vctp.32    r0\n"                    \
                   "    vpst\n"                             \
                   "    vstrbt.32  q2, [r3, q7]\n"          \
                   "4:  add        r12, #1\n"               \
                   "    cmp        r12, #4\n"               \
                   "    bne        1b\n"                    \
                   "    vpop       {d8-d15}\n"              \
                   "    pop        {r4-r11, pc}\n")

ES_MVE_NAKED static void row_1_hidden(const line *by __attribute__((unused)))
{
    ROW(STRIDE_1, HIDDEN);
}

ES_MVE_NAKED static void row_1_away(const line *by __attribute__((unused)))
{
    ROW(STRIDE_1, AWAY);
}

ES_MVE_NAKED static void row_2_hidden(const line *by __attribute__((unused)))
{
    ROW(STRIDE_2, HIDDEN);
}

ES_MVE_NAKED static void row_2_away(const line *by __attribute__((unused)))
{
    ROW(STRIDE_2, AWAY);
}

/* Where columns come from: four channels' codes in three rows, positions `step` apart. */
typedef struct {
    int32_t *to;           /* at 0 */
    const int8_t *from[3]; /* 4 */
    int32_t step[3];       /* 16 */
    int32_t count;         /* 28 */
} rows;

_Static_assert(offsetof(rows, count) == 28, "the assembly loads them in this order");

/* Words of columns, each channel's `plane` bytes behind the last one's. */
ES_MVE_NAKED static void columns(const rows *of __attribute__((unused)),
                                 int32_t plane __attribute__((unused)))
{
    __asm volatile("    push       {r4-r6, r8, lr}\n"
                   "    movs       r2, #0\n"
                   "    vidup.u32  q3, r2, #1\n"
                   "    vmul.i32   q3, q3, r1\n"
                   "    mov        r12, r0\n"
                   "    ldm        r12, {r0-r6, r8}\n"
                   "    wls        lr, r8, 2f\n"
                   "1:  vldrb.u32  q0, [r1]\n"
                   "    add        r1, r4\n"
                   "    vldrb.u32  q1, [r2]\n"
                   "    add        r2, r5\n"
                   "    vldrb.u32  q2, [r3]\n"
                   "    add        r3, r6\n"
                   "    vsli.32    q0, q1, #8\n"
                   "    vsli.32    q0, q2, #16\n"
                   "    vstrw.32   q0, [r0, q3]\n"
                   "    adds       r0, #4\n"
                   "    le         lr, 1b\n"
                   "2:  pop        {r4-r6, r8, pc}\n");
}

/* Columns that any vector of a row loads: outputs are computed in fours. */
static int32_t column_count(const es_window *w)
{
    return ((w->out_width + 3) & ~3) * w->stride_width + 2;
}

static void fill(int32_t *to, int32_t code, int32_t count)
{
    const int32_t word = (int32_t)(0x00010101u * (uint8_t)code);
    for (int32_t i = 0; i < count; ++i) {
        to[i] = word;
    }
}

typedef void row_function(const line *by);

void es_mve_depthwise_3x3_s8(const es_mve_depthwise_3x3_args *args, const int8_t *in, int8_t *out,
                             int8_t *scratch)
{
    static row_function *const functions[2][2] = {{row_1_hidden, row_1_away},
                                                  {row_2_hidden, row_2_away}};
    const es_window *w = &args->window;
    const es_mve_tail *tail = &args->tail;
    const int32_t channels = w->in_channels;
    const int32_t count = column_count(w);
    const int32_t in_row = w->in_width * channels;
    row_function *const row = functions[w->stride_width - 1][tail->ties];
    int32_t *const words = (int32_t *)(void *)scratch;
    const int32_t zero_word = (int32_t)(0x01010101u * (uint8_t)args->in_zero);
    line by = {
        .columns = words,
        .plane = 4 * count,
        .step = 4 * channels,
        .quads = w->out_width >> 2,
        .left = w->out_width & 3,
        .zero = tail->zero,
        .low = tail->low,
        .high = tail->high,
        .channels = channels,
    };
    rows of = {.to = words + w->pad_left, .count = es_min(w->in_width, count - w->pad_left)};
    fill(words, args->in_zero, 4 * count);
    for (int32_t n = 0; n < w->batch; ++n) {
        for (int32_t oy = 0; oy < w->out_height; ++oy) {
            const int32_t y = oy * w->stride_height - w->pad_top;
            int32_t move[3];
            for (int32_t i = 0; i < 3; ++i) {
                const int32_t inside = y + i >= 0 && y + i < w->in_height;
                of.from[i] = inside ? in + (y + i) * in_row : (const int8_t *)&zero_word;
                of.step[i] = inside ? channels : 0;
                move[i] = inside ? 4 : 0;
            }
            by.record = tail->records;
            by.weights = args->weights + 4;
            by.out = out;
            for (int32_t c = 0; c < channels; c += 4) {
                columns(&of, by.plane);
                row(&by);
                by.record += ES_MVE_RECORD;
                by.weights += 64;
                by.out += 4;
                for (int32_t i = 0; i < 3; ++i) {
                    of.from[i] += move[i];
                }
            }
            out += w->out_width * channels;
        }
        in += w->in_height * in_row;
    }
}
