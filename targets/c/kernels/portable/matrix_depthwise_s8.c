#include "es_matrix_core.h"

#if ES_ARMV6M
#define NEXT "adds  r2, r2, r3\n"
#define TAP                  \
    "ldrsb r4, [r0, r2]\n"   \
    "ldrsb r5, [r1, r2]\n"   \
    "muls  r4, r5, r4\n"     \
    "adds  r7, r7, r4\n"
#endif

/* sums[k] = bias[k] + sum over 3x3 taps of x[k] * weights[k], `count` >= 1 channels. Taps stand `step`
 * codes apart in both; rows of x a further `skip` codes. */
static ES_NOINLINE void taps_3x3(const int8_t *x, const int8_t *weights, int32_t step,
                                       int32_t skip, const int32_t *bias, int32_t count, uint32_t *sums)
{
#if ES_ARMV6M
    register const int8_t *from __asm__("r0") = x;
    register const int8_t *row __asm__("r1") = weights;
    register int32_t steps __asm__("r2") = step;
    register int32_t skips __asm__("r3") = skip;
    register uint32_t *to __asm__("r12") = sums;
    register const int32_t *next __asm__("r11") = bias;
    register uint32_t *end __asm__("r10") = sums + count;
    __asm__ volatile(".syntax unified\n"
                     "push  {r4, r5, r6, r7}\n"
                     "movs  r6, r3\n"
                     "movs  r3, r2\n"
                     "lsls  r2, r2, #3\n"
                     "movs  r4, #1\n"
                     "subs  r4, r4, r2\n"
                     "mov   r8, r4\n" /* from the last tap to the first one of the next channel */
                     "lsls  r4, r6, #1\n"
                     "negs  r4, r4\n"
                     "mov   r9, r4\n"
                     "movs  r2, #0\n"
                     "1:\n"
                     "mov   r4, r11\n"
                     "ldmia r4!, {r7}\n"
                     "mov   r11, r4\n"
                     TAP
                     NEXT TAP NEXT TAP NEXT
                     "adds  r0, r0, r6\n"
                     TAP NEXT TAP NEXT TAP NEXT
                     "adds  r0, r0, r6\n"
                     TAP NEXT TAP NEXT TAP
                     "add   r2, r8\n"
                     "add   r0, r9\n"
                     "mov   r4, r12\n"
                     "stmia r4!, {r7}\n"
                     "mov   r12, r4\n"
                     "cmp   r4, r10\n"
                     "bne   1b\n"
                     "pop   {r4, r5, r6, r7}\n"
                     : "+r"(from), "+r"(row), "+r"(steps), "+r"(skips), "+r"(to),
                       "+r"(next)
                     : "r"(end)
                     : "r8", "r9", "cc", "memory");
#else
    for (int32_t k = 0; k < count; ++k) {
        const int8_t *code = x + k, *weight = weights + k;
        uint32_t sum = (uint32_t)bias[k];
        for (int32_t i = 0; i < 3; ++i) {
            sum += (uint32_t)(code[0] * weight[0]);
            sum += (uint32_t)(code[step] * weight[step]);
            sum += (uint32_t)(code[2 * step] * weight[2 * step]);
            code += 3 * step + skip;
            weight += 3 * step;
        }
        sums[k] = sum;
    }
#endif
}

#define ES_CODE int8_t
#define ES_DEPTHWISE_ARGS es_depthwise_s8_args

/* The same over any taps, of codes less `zero`. */
static ES_NOINLINE void any_taps(const int8_t *x, const int8_t *weights, const es_tap *taps,
                                 int32_t many, int32_t zero, const int32_t *bias, int32_t count,
                                 uint32_t *sums)
{
#if ES_ARMV6M
    register const int8_t *from __asm__("r0") = x;
    register const int8_t *row __asm__("r1") = weights;
    register const es_tap *tap_end __asm__("r3") = taps + many;
    register int32_t less __asm__("r2") = zero;
    register const es_tap *first __asm__("r8") = taps;
    register const int32_t *next __asm__("r9") = bias;
    register uint32_t *to __asm__("r12") = sums;
    register uint32_t *end __asm__("r10") = sums + count;
    __asm__ volatile(".syntax unified\n"
                     "push  {r4, r5, r6, r7}\n"
                     "movs  r6, r2\n"
                     "1:\n"
                     "mov   r4, r9\n"
                     "ldmia r4!, {r7}\n"
                     "mov   r9, r4\n"
                     "mov   r2, r8\n"
                     "b     3f\n"
                     "2:\n"
                     "ldmia r2!, {r4, r5}\n"
                     "ldrsb r4, [r0, r4]\n"
                     "ldrsb r5, [r1, r5]\n"
                     "subs  r4, r4, r6\n"
                     "muls  r4, r5, r4\n"
                     "adds  r7, r7, r4\n"
                     "3:\n"
                     "cmp   r2, r3\n"
                     "bne   2b\n"
                     "adds  r0, r0, #1\n"
                     "adds  r1, r1, #1\n"
                     "mov   r4, r12\n"
                     "stmia r4!, {r7}\n"
                     "mov   r12, r4\n"
                     "cmp   r4, r10\n"
                     "bne   1b\n"
                     "pop   {r4, r5, r6, r7}\n"
                     : "+r"(from), "+r"(row), "+r"(less), "+r"(next), "+r"(to)
                     : "r"(tap_end), "r"(first), "r"(end)
                     : "cc", "memory");
#else
    for (int32_t k = 0; k < count; ++k) {
        uint32_t sum = (uint32_t)bias[k];
        for (int32_t i = 0; i < many; ++i) {
            sum += (uint32_t)((x[taps[i].code] - zero) * weights[taps[i].weight]);
        }
        sums[k] = sum;
        x += 1;
        weights += 1;
    }
#endif
}

static void position(const es_depthwise_s8_args *args, const int8_t *in, const int8_t *weights,
                     const es_tap *taps, int32_t count, int8_t *out)
{
    const es_window *w = &args->window;
    const int32_t channels = w->out_channels;
    const int whole = count == 9 && w->kernel_height == 3 && w->dilation_width == 1 &&
                      args->multiplier == 1;
    const int32_t *bias = whole ? args->folded : args->bias;
    const int32_t most = args->multiplier == 1 ? ES_STRIP : 1;
    int32_t copies = args->multiplier;
    for (int32_t c = 0; c < channels;) {
        uint32_t sums[ES_STRIP];
        const int32_t n = es_min(channels - c, most);
        if (whole) {
            const int32_t skip = taps[3].code - taps[2].code - channels;
            taps_3x3(in + taps[0].code, weights, channels, skip, bias, n, sums);
        } else {
            any_taps(in, weights, taps, count, args->in_zero, bias, n, sums);
        }
        es_finish_s8(&args->tail, c, n, sums, out);
        bias += n;
        c += n;
        out += n;
        weights += n;
        if (most > 1) {
            in += n;
        } else if (--copies == 0) {
            in += 1;
            copies = args->multiplier;
        }
    }
}

#include "es_depthwise_walk.h"

void es_depthwise_s8(const es_depthwise_s8_args *args, const int8_t *in, int8_t *out,
                     void *scratch)
{
    es_depthwise(args, in, out, scratch);
}
