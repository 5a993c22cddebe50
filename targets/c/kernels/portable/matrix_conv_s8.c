#include "es_matrix_core.h"

#define ROWS 4 /* output channels that are summed together */

#if ES_ARMV6M
#define DOT4_ROW(row, sum)    \
    "ldrsb r7, [" row ", r3]\n"  \
    "muls  r7, r6, r7\n"         \
    "add   " sum ", r7\n"
#define DOT4_COLUMN         \
    "ldrsb r6, [r0, r3]\n"     \
    DOT4_ROW("r1", "r8")    \
    DOT4_ROW("r4", "r9")    \
    DOT4_ROW("r5", "r10")   \
    DOT4_ROW("r2", "r11")   \
    "adds  r3, r3, #1\n"
#endif

/* sums[k] = bias[k] + x . row k for ROWS * `blocks` rows of `count` >= 1 codes. */
static ES_NOINLINE void dot_rows(const int8_t *x, const int8_t *weights, int32_t count,
                                 int32_t blocks, const int32_t *bias, uint32_t *sums)
{
#if ES_ARMV6M
    register const int8_t *x_end __asm__("r0") = x + count;
    register const int8_t *row_end __asm__("r1") = weights + count;
    register const int32_t *next __asm__("r2") = bias;
    register int32_t from __asm__("r3") = -count;
    register uint32_t *to __asm__("r12") = sums;
    register uint32_t *end __asm__("lr") = sums + ROWS * blocks;
    __asm__ volatile(".syntax unified\n"
                     "push  {r4, r5, r6, r7}\n"
                     "push  {r2, r3}\n"
                     "1:\n"
                     "ldr   r2, [sp]\n"
                     "ldmia r2!, {r4, r5, r6, r7}\n"
                     "str   r2, [sp]\n"
                     "mov   r8, r4\n"
                     "mov   r9, r5\n"
                     "mov   r10, r6\n"
                     "mov   r11, r7\n"
                     "subs  r4, r1, r3\n"
                     "subs  r5, r4, r3\n"
                     "subs  r2, r5, r3\n"
                     "lsls  r6, r3, #31\n"
                     "beq   2f\n"
                     DOT4_COLUMN
                     "beq   3f\n"
                     "2:\n"
                     DOT4_COLUMN
                     DOT4_COLUMN
                     "bne   2b\n"
                     "3:\n"
                     "mov   r3, r12\n"
                     "mov   r4, r8\n"
                     "mov   r5, r9\n"
                     "mov   r6, r10\n"
                     "mov   r7, r11\n"
                     "stmia r3!, {r4, r5, r6, r7}\n"
                     "mov   r12, r3\n"
                     "ldr   r3, [sp, #4]\n"
                     "subs  r1, r2, r3\n"
                     "cmp   r12, lr\n"
                     "bne   1b\n"
                     "pop   {r2, r3}\n"
                     "pop   {r4, r5, r6, r7}\n"
                     : "+r"(x_end), "+r"(row_end), "+r"(next), "+r"(from), "+r"(to)
                     : "r"(end)
                     : "r8", "r9", "r10", "r11", "cc", "memory");
#else
    for (; blocks > 0; --blocks) {
        const int8_t *a = weights, *b = a + count, *c = b + count, *d = c + count;
        uint32_t sum_a = (uint32_t)bias[0], sum_b = (uint32_t)bias[1];
        uint32_t sum_c = (uint32_t)bias[2], sum_d = (uint32_t)bias[3];
        for (int32_t i = 0; i < count; ++i) {
            const int32_t code = x[i];
            sum_a += (uint32_t)(code * a[i]);
            sum_b += (uint32_t)(code * b[i]);
            sum_c += (uint32_t)(code * c[i]);
            sum_d += (uint32_t)(code * d[i]);
        }
        sums[0] = sum_a;
        sums[1] = sum_b;
        sums[2] = sum_c;
        sums[3] = sum_d;
        weights += ROWS * count;
        bias += ROWS;
        sums += ROWS;
    }
#endif
}

static uint32_t dot(const int8_t *x, const int8_t *row, int32_t count, int32_t bias)
{
    uint32_t sum = (uint32_t)bias;
    for (int32_t i = 0; i < count; ++i) {
        sum += (uint32_t)(x[i] * row[i]);
    }
    return sum;
}

#define ES_CODE int8_t
#define ES_CONV_ARGS es_conv_s8_args

static void position(const es_conv_s8_args *args, const int8_t *patch, int8_t *out)
{
    const int32_t row = args->row;
    const int8_t *weights = args->weights;
    const int32_t *bias = args->bias;
    int32_t channel = 0;
    for (int32_t g = args->groups; g > 0; --g) {
        for (int32_t left = args->filters; left > 0;) {
            uint32_t sums[ES_STRIP];
            const int32_t count = es_min(left, ES_STRIP);
            const int32_t whole = count / ROWS;
            if (whole > 0) {
                dot_rows(patch, weights, row, whole, bias, sums);
            }
            for (int32_t k = whole * ROWS; k < count; ++k) {
                sums[k] = dot(patch, weights + k * row, row, bias[k]);
            }
            es_finish_s8(&args->tail, channel, count, sums, out);
            weights += count * row;
            bias += count;
            out += count;
            channel += count;
            left -= count;
        }
        patch += row;
    }
}

#include "es_patch.h"

void es_conv_s8(const es_conv_s8_args *args, const int8_t *in, int8_t *out, int8_t *scratch)
{
    es_convolve(args, in, out, scratch);
}

void es_conv_s8_pointwise(const es_conv_s8_args *args, const int8_t *in, int8_t *out,
                          int8_t *scratch)
{
    es_convolve_pointwise(args, in, out, scratch);
}

void es_conv_s8_fully_connected(const es_conv_s8_args *args, const int8_t *in, int8_t *out)
{
    position(args, in, out);
}
