#include "es_common.h"
#include "es_gather.h"
#include "es_mve_core.h"

#define RECORD_WORDS 36

/* Products of 16 channels at one tap, the even channels' in q2, the odd ones' in q3. */
#define PRODUCTS(load, at)               \
    load "q0, [%[" at "]]\n"             \
    "    vldrb.8    q1, [%[weights]], #16\n" \
    "    vmullb.s8  q2, q0, q1\n"        \
    "    vmullt.s8  q3, q0, q1\n"
/* A second tap's added in 16 bits: weights are laid out so that no sum of two overflows. */
#define MORE_PRODUCTS(load, at)          \
    load "q0, [%[" at "]]\n"             \
    "    vldrb.8    q1, [%[weights]], #16\n" \
    "    vmullt.s8  q0, q0, q1\n"        \
    "    vadd.i16   q3, q3, q0\n"        \
    load "q0, [%[" at "]]\n"             \
    "    vmullb.s8  q0, q0, q1\n"        \
    "    vadd.i16   q2, q2, q0\n"
#define ADD_UP                           \
    "    vmovlb.s16 q0, q2\n"            \
    "    vmovlt.s16 q1, q2\n"            \
    "    vadd.i32   %q[a], %q[a], q0\n"  \
    "    vmovlb.s16 q0, q3\n"            \
    "    vadd.i32   %q[c], %q[c], q1\n"  \
    "    vmovlt.s16 q1, q3\n"            \
    "    vadd.i32   %q[b], %q[b], q0\n"  \
    "    vadd.i32   %q[d], %q[d], q1\n"
#define TAPS(load)                                   \
    "    lsr        lr, %[taps], #1\n"               \
    "    wls        lr, lr, 2f\n"                    \
    "1:  ldrd       %[x], %[y], [%[offsets]], #8\n"  \
    "    add        %[x], %[base]\n"                 \
    "    add        %[y], %[base]\n"                 \
    PRODUCTS(load, "x") MORE_PRODUCTS(load, "y") ADD_UP \
    "    le         lr, 1b\n"                        \
    "2:  tst        %[taps], #1\n"                   \
    "    beq        3f\n"                            \
    "    ldr        %[x], [%[offsets]]\n"            \
    "    add        %[x], %[base]\n"                 \
    PRODUCTS(load, "x") ADD_UP                       \
    "3:\n"
#define ALL_LANES "    vldrb.8    "
#define SOME_LANES "    vpst\n    vldrbt.8   "
#define RUN(code)                                                                       \
    __asm volatile(code                                                                 \
                   : [weights] "+r"(weights), [offsets] "+r"(offsets), [x] "=&r"(x),    \
                     [y] "=&r"(y), [a] "+w"(a), [b] "+w"(b), [c] "+w"(c), [d] "+w"(d)   \
                   : [base] "r"(base), [taps] "r"(taps), [lanes] "r"(lanes)             \
                   : "lr", "q0", "q1", "q2", "q3", "cc", "memory")

/* `lanes` outputs, at most 16. */
static inline void block(const es_mve_depthwise_args *args, const int8_t *base,
                         const int32_t *offsets, const int8_t *weights, const int32_t *record,
                         int32_t lanes, int8_t *out)
{
    const es_mve_tail *tail = &args->tail;
    const int32_t taps = args->window.kernel_height * args->window.kernel_width;
    int32x4_t a = vldrwq_s32(record), b = vldrwq_s32(record + 4);
    int32x4_t c = vldrwq_s32(record + 8), d = vldrwq_s32(record + 12);
    int32_t x, y;
    if (lanes == 16) {
        RUN(TAPS(ALL_LANES));
    } else {
        RUN("    vctp.8     %[lanes]\n" TAPS(SOME_LANES));
    }
    const int8_t *shift = (const int8_t *)(record + 32);
    const int32_t ties = tail->ties;
    a = es_mve_requantize(a, vldrwq_s32(record + 16), vldrbq_s32(shift), ties);
    b = es_mve_requantize(b, vldrwq_s32(record + 20), vldrbq_s32(shift + 4), ties);
    c = es_mve_requantize(c, vldrwq_s32(record + 24), vldrbq_s32(shift + 8), ties);
    d = es_mve_requantize(d, vldrwq_s32(record + 28), vldrbq_s32(shift + 12), ties);
    int16x8_t even = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(a), a), c);
    int16x8_t odd = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(b), b), d);
    even = vqaddq_n_s16(even, (int16_t)tail->zero);
    odd = vqaddq_n_s16(odd, (int16_t)tail->zero);
    int8x16_t codes = vqmovntq_s16(vqmovnbq_s16(vreinterpretq_s8_s16(even), even), odd);
    codes = vmaxq_s8(codes, vdupq_n_s8((int8_t)tail->low));
    codes = vminq_s8(codes, vdupq_n_s8((int8_t)tail->high));
    __asm volatile("    vctp.8     %[lanes]\n"
                   "    vpst\n"
                   "    vstrbt.8   %q[codes], [%[out]]\n"
                   :
                   : [codes] "w"(codes), [out] "r"(out), [lanes] "r"(lanes)
                   : "memory");
}

/* `count` outputs: the channels of a position, or of as many as one vector holds. */
static void blocks(const es_mve_depthwise_args *args, const int8_t *base, const int32_t *offsets,
                   int32_t count, int8_t *out)
{
    const int32_t block_bytes = 16 * args->window.kernel_height * args->window.kernel_width;
    const int8_t *weights = args->weights;
    const int32_t *record = args->tail.records;
    for (int32_t c = 0; c < count; c += 16) {
        block(args, base + c, offsets, weights, record, es_min(count - c, 16), out + c);
        weights += block_bytes;
        record += RECORD_WORDS;
    }
}

/* The taps' offsets from `base` where the window at (y, x) leaves the input: what lies outside is
 * read from `padding`. */
static void outline(const es_mve_depthwise_args *args, int32_t y, int32_t x, const int8_t *base,
                    const int8_t *padding, int32_t *offsets)
{
    const es_window *w = &args->window;
    const es_span ys = es_inside(y, w->kernel_height, w->dilation_height, w->in_height);
    const es_span xs = es_inside(x, w->kernel_width, w->dilation_width, w->in_width);
    const int32_t outside = (int32_t)((uintptr_t)padding - (uintptr_t)base);
    const int32_t *inside = args->offsets;
    for (int32_t i = 0; i < w->kernel_height; ++i) {
        const int32_t row_in = i >= ys.first && i < ys.end;
        for (int32_t j = 0; j < w->kernel_width; ++j) {
            *offsets++ = row_in && j >= xs.first && j < xs.end ? *inside : outside;
            ++inside;
        }
    }
}

void es_mve_depthwise_s8(const es_mve_depthwise_args *args, const int8_t *in, int8_t *out,
                         int8_t *scratch)
{
    const es_window *w = &args->window;
    const int32_t channels = w->in_channels;
    const int32_t padding_bytes = (channels + 15) & ~15;
    const int32_t last_y = w->in_height - (w->kernel_height - 1) * w->dilation_height - 1;
    const int32_t last_x = w->in_width - (w->kernel_width - 1) * w->dilation_width - 1;
    const int32_t run = (args->span - 1) * w->stride_width;
    int32_t *const outlined = (int32_t *)(void *)(scratch + padding_bytes);
    es_mve_fill(scratch, args->in_zero, padding_bytes);
    for (int32_t n = 0; n < w->batch; ++n) {
        for (int32_t oy = 0; oy < w->out_height; ++oy) {
            const int32_t y = oy * w->stride_height - w->pad_top;
            int32_t x = -w->pad_left;
            for (int32_t ox = 0; ox < w->out_width;) {
                /* May lie outside the input, where only offsets that lead inside are added. */
                const uintptr_t start = (uintptr_t)((y * w->in_width + x) * channels);
                const int8_t *const base = (const int8_t *)((uintptr_t)in + start);
                const int32_t *offsets = args->offsets;
                int32_t positions = 1;
                if (y < 0 || y > last_y || x < 0 || x > last_x) {
                    outline(args, y, x, base, scratch, outlined);
                    offsets = outlined;
                } else if (x + run <= last_x && ox + args->span <= w->out_width) {
                    positions = args->span;
                }
                blocks(args, base, offsets, positions * channels, out);
                ox += positions;
                x += positions * w->stride_width;
                out += positions * channels;
            }
        }
        in += w->in_height * w->in_width * channels;
    }
}
