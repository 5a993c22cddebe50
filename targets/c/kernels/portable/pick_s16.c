#include "es_movement.h"

#define ES_KERNEL es_pick_s16
#define ES_CODE int16_t

#include "es_pick.h"
