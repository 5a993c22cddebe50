#include "es_common.h"
#include "es_elementwise.h"

#define ES_CODE int8_t

#include "es_mul_row.h"

#if ES_DSP
typedef struct {
    int32_t zero_a, zero_b, multiplier, right, moved;
} factors;

/* es_requantize with a right shift, the zero point and the last rounding added in one. */
static inline uint32_t scaled(factors by, int32_t a, int32_t b)
{
    int32_t value = es_high_mul_normal((by.zero_a + a) * (by.zero_b + b), by.multiplier);
    value = ((value + (value >> 31)) >> by.right) + by.moved;
    __asm__("ssat %0, #8, %0, asr #1" : "+r"(value) : : "cc");
    return (uint32_t)value;
}

/* Four at a time, `count` of them. */
static ES_NOINLINE void words(const es_mul_args *args, const int8_t *a, const int8_t *b,
                              int8_t *out, int32_t count)
{
    const factors by = {-args->zero_a, -args->zero_b, args->multiplier, -args->shift - 1,
                        2 * args->zero + 1};
    const es_lanes limits = es_lanes_of(args->low + args->zero, args->high + args->zero);
    for (const int8_t *const end = a + count; a != end; a += 4) {
        const uint32_t x = es_load_word(a), y = es_load_word(b);
        const uint32_t codes = es_pack_bytes(
            scaled(by, (int8_t)x, (int8_t)y), scaled(by, (int8_t)(x >> 8), (int8_t)(y >> 8)),
            scaled(by, (int8_t)(x >> 16), (int8_t)(y >> 16)),
            scaled(by, (int8_t)(x >> 24), (int8_t)(y >> 24)));
        es_store_word(out, es_clamp_lanes(codes, limits));
        b += 4;
        out += 4;
    }
}
#endif

static void row(const ES_ARGS *args, const int8_t *a, const int8_t *b, int8_t *out)
{
    int32_t i = 0;
#if ES_DSP
    if (args->shift < 0 && (args->shape.step_a & args->shape.step_b)) {
        i = args->shape.count & ~3;
        words(args, a, b, out, i);
        a += i;
        b += i;
    }
#endif
    es_finish_row(args, i, a, b, out);
}

#include "es_broadcast.h"

void es_mul_s8(const es_mul_args *args, const int8_t *a, const int8_t *b, int8_t *out)
{
    es_for_rows(args, a, b, out);
}
