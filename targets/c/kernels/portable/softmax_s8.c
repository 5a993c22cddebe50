#include "es_common.h"
#include "es_reciprocal.h"
#include "es_softmax.h"

#define ES_CODE int8_t

#include "es_row_max.h"

/* Integer bits of the sum of exponentials. */
enum { SUM_BITS = 12 };

/* value / 2^exponent to nearest, for value >= 0. */
static inline int32_t divide(int32_t value, int32_t exponent)
{
    return (int32_t)(((uint32_t)value + (1u << (exponent - 1))) >> exponent);
}

void es_softmax_s8(const es_softmax_s8_args *args, const int8_t *in, int8_t *out)
{
    const int32_t depth = args->depth, entries = args->entries;
    const int32_t *const table = args->table;
    for (int32_t rows = args->rows; rows > 0; --rows) {
        const int32_t most = es_row_max(in, depth);
        uint32_t sum = 0;
        for (int32_t i = 0; i < depth; ++i) {
            const int32_t difference = most - in[i];
            if (difference < entries) {
                sum += (uint32_t)divide(table[difference], SUM_BITS);
            }
        }
        const int32_t headroom = es_leading_zeros(sum);
        const int32_t reciprocal = es_one_over_one_plus((sum << headroom) - 0x80000000u);
        const int32_t exponent = SUM_BITS - headroom + 31 - 8;
        for (int32_t i = 0; i < depth; ++i) {
            const int32_t difference = most - in[i];
            int32_t code = 0;
            /* Beyond 31 bits every share is less than half a code. */
            if (difference < entries && exponent <= 31) {
                code = divide(es_high_mul(table[difference], reciprocal), exponent);
            }
            out[i] = (int8_t)es_min(code - 128, 127);
        }
        in += depth;
        out += depth;
    }
}
