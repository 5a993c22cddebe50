#include "es_common.h"
#include "es_elementwise.h"

#define ES_CODE int8_t

#include "es_add_row.h"
#include "es_broadcast.h"

void es_add_s8(const es_add_args *args, const int8_t *a, const int8_t *b, int8_t *out)
{
    es_for_rows(args, a, b, out);
}
