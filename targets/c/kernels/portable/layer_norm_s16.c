#include "es_norm.h"
#include "es_root.h"

#define ES_KERNEL es_layer_norm_s16
#define ES_CODE int16_t
#define ES_SQUARES int64_t
#define ES_SATURATE es_saturate_s16

#include "es_norm_rows.h"
