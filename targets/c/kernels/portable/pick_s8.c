#include "es_movement.h"

#define ES_KERNEL es_pick_s8
#define ES_CODE int8_t

#include "es_pick.h"
