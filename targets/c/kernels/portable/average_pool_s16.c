#include "es_common.h"
#include "es_pool.h"

#define ES_CODE int16_t
#define ES_WORD_SUMS 0

#include "es_average_window.h"
#include "es_window_walk.h"

void es_average_pool_s16(const es_pool_args *args, const int16_t *in, int16_t *out)
{
    es_for_windows(args, in, out);
}
