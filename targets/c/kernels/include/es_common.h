/* Fixed-point arithmetic that all kernels share.
 *
 * Every function equals the reference executor (TFLite Micro's arithmetic) in every bit.
 * Right shifts of negative values are arithmetic; left shifts go through unsigned types.
 * Cores with the DSP extension get single instructions where those are exactly equal. */
#ifndef ES_COMMON_H
#define ES_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_DSP) && defined(__arm__)
#define ES_DSP 1
#else
#define ES_DSP 0
#endif

/* Cores that multiply 32 by 32 bits to 32 only. */
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define ES_SHORT_MULTIPLY 1
#else
#define ES_SHORT_MULTIPLY 0
#endif

/* Inner loops stand in functions of their own: they keep their registers, and code stays small. */
#if defined(__GNUC__)
#define ES_NOINLINE __attribute__((noinline))
#else
#define ES_NOINLINE
#endif

static inline int32_t es_min(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t es_max(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static inline int32_t es_clamp(int32_t value, int32_t low, int32_t high)
{
    return es_min(es_max(value, low), high);
}

/* To [-128, 127]: one SSAT. */
static inline int32_t es_saturate_s8(int32_t value)
{
#if ES_DSP
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value) : "cc");
    return result;
#else
    return es_clamp(value, -128, 127);
#endif
}

static inline int32_t es_saturate_s16(int32_t value)
{
#if ES_DSP
    int32_t result;
    __asm__("ssat %0, #16, %1" : "=r"(result) : "r"(value) : "cc");
    return result;
#else
    return es_clamp(value, -32768, 32767);
#endif
}

/* A rescaled value of any size, moved by a zero point of 8 bits. */
static inline int8_t es_code_s8(int32_t scaled, int32_t zero)
{
    return (int8_t)es_saturate_s8(es_saturate_s16(scaled) + zero);
}

/* value * 2^bits modulo 2^32. */
static inline int32_t es_shift_left(int32_t value, int32_t bits)
{
    return (int32_t)((uint32_t)value << bits);
}

/* round(value * factor / 2^31), ties up, for any value and 0 <= factor.
 *
 * SMMLAR gives (2^32 a + x y + 2^31) >> 32. With y = 2 factor, which is 2 factor - 2^32 as a
 * signed word where factor >= 2^30, and a = value there, that is (value factor + 2^30) >> 31. */
static inline int32_t es_high_mul(int32_t value, int32_t factor)
{
#if ES_DSP
    const int32_t twice = es_shift_left(factor, 1);
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3"
            : "=r"(result)
            : "r"(value), "r"(twice), "r"(value & (twice >> 31)));
    return result;
#elif ES_SHORT_MULTIPLY
    const uint32_t low = (uint16_t)value, factor_low = (uint16_t)factor;
    const int32_t high = value >> 16, factor_high = factor >> 16;
    const int32_t middle = high * (int32_t)factor_low + (int32_t)((low * factor_low) >> 16);
    const uint32_t rest = low * (uint32_t)factor_high + (uint16_t)middle + (1u << 14);
    return (int32_t)(2u * (uint32_t)(high * factor_high + (middle >> 16)) + (rest >> 15));
#else
    return (int32_t)(((int64_t)value * factor + (1 << 30)) >> 31);
#endif
}

/* As es_high_mul for 2^30 <= factor, as all multipliers but zero and those of means are. */
static inline int32_t es_high_mul_normal(int32_t value, int32_t factor)
{
#if ES_DSP
    int32_t result;
    __asm__("smmlar %0, %1, %2, %1" : "=r"(result) : "r"(value), "r"(es_shift_left(factor, 1)));
    return result;
#else
    return es_high_mul(value, factor);
#endif
}

/* value / 2^exponent rounded half away from zero, 1 <= exponent <= 32, value > INT32_MIN. */
static inline int32_t es_divide_by_pot_positive(int32_t value, int32_t exponent)
{
    /* A negative tie must fall down; no other negative value is lowered across a boundary. */
    return (((value + (value >> 31)) >> (exponent - 1)) + 1) >> 1;
}

/* The same for 0 <= exponent. */
static inline int32_t es_divide_by_pot(int32_t value, int32_t exponent)
{
    return exponent == 0 ? value : es_divide_by_pot_positive(value, exponent);
}

/* value * multiplier * 2^(shift - 31) with two roundings; a left shift wraps. */
static inline int32_t es_requantize(int32_t value, int32_t multiplier, int32_t shift)
{
    if (shift >= 0) {
        return es_high_mul(es_shift_left(value, shift), multiplier);
    }
    return es_divide_by_pot_positive(es_high_mul(value, multiplier), -shift);
}

/* The same on sums of 16-bit activations, |value| < 2^47: a multiplier reduced to 16 bits, one
 * rounding, shift <= 14; the result wraps to 32 bits. */
static inline int32_t es_requantize_wide(int64_t value, int32_t multiplier, int32_t shift)
{
    const int32_t reduced = multiplier < 0x7FFF0000 ? (multiplier + (1 << 15)) >> 16 : 0x7FFF;
    const int32_t right = 15 - shift;
    const int64_t product = value * reduced + ((int64_t)1 << (right - 1));
    return (int32_t)(uint32_t)(uint64_t)(product >> right);
}

/* Four bytes at any address, the first one lowest. */
static inline uint32_t es_load_word(const void *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static inline void es_store_word(void *to, uint32_t word)
{
    memcpy(to, &word, sizeof word);
}

#if ES_DSP
/* The low bytes of four words, in three instructions. */
static inline uint32_t es_pack_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    __asm__("bfi %0, %1, #8, #24" : "+r"(a) : "r"(b));
    __asm__("bfi %0, %1, #16, #16" : "+r"(a) : "r"(c));
    __asm__("bfi %0, %1, #24, #8" : "+r"(a) : "r"(d));
    return a;
}

/* Limits of 8-bit codes, in every byte of a word. */
typedef struct {
    uint32_t low, high;
} es_lanes;

static inline es_lanes es_lanes_of(int32_t low, int32_t high)
{
    return (es_lanes){(uint8_t)low * 0x01010101u, (uint8_t)high * 0x01010101u};
}

static inline uint32_t es_clamp_lanes(uint32_t codes, es_lanes to)
{
    uint32_t unused;
    __asm__("ssub8 %1, %0, %2\n\tsel %0, %0, %2\n\t"
            "ssub8 %1, %3, %0\n\tsel %0, %0, %3"
            : "+r"(codes), "=&r"(unused)
            : "r"(to.low), "r"(to.high)
            : "cc");
    return codes;
}
#endif

#endif
