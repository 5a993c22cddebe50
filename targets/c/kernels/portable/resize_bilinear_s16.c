#include "es_common.h"
#include "es_resize.h"

#define ES_KERNEL es_resize_bilinear_s16
#define ES_CODE int16_t
#define ES_SUM int64_t

#include "es_bilinear.h"
