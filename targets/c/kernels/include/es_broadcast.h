/* The walk over the rows of a broadcast; include it after defining, for arguments of type
 * ES_ARGS and elements of type ES_CODE,
 *     static void row(const ES_ARGS *, const ES_CODE *a, const ES_CODE *b, ES_CODE *out);
 */
static inline void es_for_rows(const ES_ARGS *args, const ES_CODE *a, const ES_CODE *b,
                               ES_CODE *out)
{
    const es_broadcast *shape = &args->shape;
    int32_t index[ES_OUTER_AXES] = {0};
    for (;;) {
        int32_t axis = ES_OUTER_AXES - 1;
        row(args, a, b, out);
        out += shape->count;
        while (++index[axis] == shape->size[axis]) {
            index[axis] = 0;
            if (axis-- == 0) {
                return;
            }
        }
        a += shape->jump_a[axis];
        b += shape->jump_b[axis];
    }
}
