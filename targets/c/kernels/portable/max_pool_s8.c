#include "es_common.h"
#include "es_pool.h"

#define ES_CODE int8_t
#define ES_LANES 0x01010101u
#define ES_SUBTRACT "ssub8"

#include "es_max_window.h"
#include "es_window_walk.h"

void es_max_pool_s8(const es_pool_args *args, const int8_t *in, int8_t *out)
{
    es_for_windows(args, in, out);
}
