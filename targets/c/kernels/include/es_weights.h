/* Reading weights of 8, 4 and 2 bits. */
#ifndef ES_WEIGHTS_H
#define ES_WEIGHTS_H

#include <stdint.h>

/* Bytes of a packed row of `count` weights. */
static inline int32_t es_row_bytes(int32_t count, int32_t bits)
{
    return (count * bits + 7) / 8;
}

/* Element `index` of a packed row; sub-byte codes are two's complement, little end first. */
static inline int32_t es_weight(const int8_t *row, int32_t index, int32_t bits)
{
    if (bits == 8) {
        return row[index];
    }
    const int32_t first = index * bits;
    const uint32_t byte = (uint8_t)row[first >> 3];
    const int32_t code = (int32_t)((byte >> (first & 7)) & ((1u << bits) - 1u));
    const int32_t sign = 1 << (bits - 1);
    return (code ^ sign) - sign;
}

/* Packed rows of 4 or 2 bits, one byte per weight. */
static inline void es_unpack(const int8_t *packed, int32_t rows, int32_t count, int32_t bits,
                             int8_t *to)
{
    const int32_t unused = 32 - bits;
    for (; rows > 0; --rows) {
        int32_t held = 0;
        uint32_t byte = 0;
        for (int32_t i = 0; i < count; ++i) {
            if (held == 0) {
                byte = (uint8_t)*packed++;
                held = 8;
            }
            *to++ = (int8_t)((int32_t)(byte << unused) >> unused);
            byte >>= bits;
            held -= bits;
        }
    }
}

#endif
