#include "es_norm.h"
#include "es_root.h"

#define ES_KERNEL es_layer_norm_s8
#define ES_CODE int8_t
#define ES_SQUARES int32_t
#define ES_SATURATE es_saturate_s8

#include "es_norm_rows.h"
