#include "es_common.h"
#include "es_elementwise.h"

#define ES_CODE int16_t

#include "es_add_row.h"
#include "es_broadcast.h"

void es_add_s16(const es_add_args *args, const int16_t *a, const int16_t *b, int16_t *out)
{
    es_for_rows(args, a, b, out);
}
