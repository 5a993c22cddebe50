#include "es_pool.h"
#include "es_sum.h"

#define ES_CODE int8_t
#define ES_WORD_SUMS 1

#include "es_average_window.h"
#include "es_window_walk.h"

void es_average_pool_s8(const es_pool_args *args, const int8_t *in, int8_t *out)
{
    es_for_windows(args, in, out);
}
