/* The input codes that a window meets, gathered into one run. */
#ifndef ES_GATHER_H
#define ES_GATHER_H

#include "es_matrix.h"

/* The positions of a window along one axis that lie inside the input: from `first` to before
 * `end`, where position k meets input element start + k * dilation. */
typedef struct {
    int32_t first, end;
} es_span;

static inline es_span es_inside(int32_t start, int32_t kernel, int32_t dilation, int32_t size)
{
    es_span span = {0, kernel};
    if (start < 0) {
        span.first = (dilation - 1 - start) / dilation;
    }
    if (start + (kernel - 1) * dilation >= size) {
        span.end = start >= size ? 0 : (size - 1 - start) / dilation + 1;
    }
    if (span.first > span.end) {
        span.first = span.end;
    }
    return span;
}

#endif
