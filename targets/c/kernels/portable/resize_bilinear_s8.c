#include "es_common.h"
#include "es_resize.h"

#define ES_KERNEL es_resize_bilinear_s8
#define ES_CODE int8_t
#define ES_SUM int32_t

#include "es_bilinear.h"
