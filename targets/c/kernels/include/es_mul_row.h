/* Products of rows; include it after defining ES_CODE, the elements' type. */
#define ES_ARGS es_mul_args

static inline int32_t combined(const ES_ARGS *by, int32_t a, int32_t b)
{
    return (a - by->zero_a) * (b - by->zero_b);
}

#include "es_requantized_row.h"
