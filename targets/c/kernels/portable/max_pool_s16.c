#include "es_common.h"
#include "es_pool.h"

#define ES_CODE int16_t
#define ES_LANES 0x00010001u
#define ES_SUBTRACT "ssub16"

#include "es_max_window.h"
#include "es_window_walk.h"

void es_max_pool_s16(const es_pool_args *args, const int16_t *in, int16_t *out)
{
    es_for_windows(args, in, out);
}
