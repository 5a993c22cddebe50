/* Operators that move elements and compute nothing. Steps and sizes say of what. */
#ifndef ES_MOVEMENT_H
#define ES_MOVEMENT_H

#include <stdint.h>

#define ES_MOVE_AXES 4

/* Runs of `run` bytes, along up to four axes with the innermost last. Steps are in bytes, and so
 * is `offset`, where the first run starts in the input. */
typedef struct {
    int32_t offset, run;
    int32_t size[ES_MOVE_AXES];
    int32_t in_step[ES_MOVE_AXES];
    int32_t out_step[ES_MOVE_AXES];
} es_runs;

void es_copy_runs(const es_runs *args, const void *in, void *out);

/* `bytes` of output filled with `value` (of `element_bytes` 1 or 2), then `runs` copied in,
 * starting `offset` bytes into it. */
typedef struct {
    int32_t bytes, element_bytes;
    int32_t value, offset;
    es_runs runs;
} es_pad_args;

void es_pad(const es_pad_args *args, const void *in, void *out);

/* A dense output of single elements, the innermost axis last; `offset` and steps are in elements
 * of the input. */
typedef struct {
    int32_t offset;
    int32_t size[ES_MOVE_AXES + 1];
    int32_t step[ES_MOVE_AXES + 1];
} es_pick_args;

void es_pick_s8(const es_pick_args *args, const int8_t *in, int8_t *out);
void es_pick_s16(const es_pick_args *args, const int16_t *in, int16_t *out);

/* Runs of up to eight operands side by side, `rows` times. Slots after `operands` repeat one. */
#define ES_CONCAT_SLOTS 8

typedef struct {
    int32_t rows, operands;
    int32_t run[ES_CONCAT_SLOTS];
} es_concat_args;

void es_concat(const es_concat_args *args, const void *in0, const void *in1, const void *in2,
               const void *in3, const void *in4, const void *in5, const void *in6,
               const void *in7, void *out);

#endif
