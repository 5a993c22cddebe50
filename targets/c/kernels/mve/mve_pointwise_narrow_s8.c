#include "es_mve_block.h"

enum { STRIP = 16 };

/* As es_mve_block has them: r1 codes, r3 out, r5 weights, r7 record, r8 zero, r9 depth,
 * r10 channels, r11 block, r12 out of a group; q1 to q4 weights, q5 q6 limits. */
#define POSITIONS(label, ties)                \
    label                                     \
    "    vpst\n"                              \
    "    vldrbt.8   q0, [r1]\n"               \
    "    ldrd       r0, r2, [r7]\n"           \
    "    vmladava.s8 r0, q0, q1\n"            \
    "    ldrd       r4, r6, [r7, #8]\n"       \
    "    vmladava.s8 r2, q0, q2\n"            \
    "    add        r1, r9\n"                 \
    "    vmladava.s8 r4, q0, q3\n"            \
    "    vmladava.s8 r6, q0, q4\n"            \
    "    vldrw.32   q7, [r7, #16]\n"          \
    "    vmov       q0[2], q0[0], r0, r4\n"   \
    "    vmov       q0[3], q0[1], r2, r6\n"   \
    "    vqrdmulh.s32 q0, q0, q7\n"           \
    ties                                      \
    "    vldrb.s32  q7, [r7, #32]\n"          \
    "    vrshl.s32  q0, q0, q7\n"             \
    "    vadd.i32   q0, q0, r8\n"             \
    "    vmax.s32   q0, q0, q5\n"             \
    "    vmin.s32   q0, q0, q6\n"             \
    "    vstrb.32   q0, [r3]\n"              \
    "    add        r3, r10\n"
#define AWAY                                  \
    "    vshr.s32   q7, q0, #31\n"            \
    "    vadd.i32   q0, q0, q7\n"
#define NEXT_ROW(q)                 \
    "    vldrb.8    " q ", [r5]\n"  \
    "    add        r5, r9\n"

/* All groups at `tail_low` > 0 positions, group by group: the weights of four channels with up to
 * 16 codes each stay in registers. */
ES_MVE_NAKED static void strip(const es_mve_block *block __attribute__((unused)))
{
    __asm volatile(ES_MVE_BLOCK_BEGIN
                   "    ldrd       r0, r2, [r11, #32]\n"
                   "    vdup.32    q5, r0\n"
                   "    vdup.32    q6, r2\n"
                   "    ldr        r9, [r11, #8]\n"
                   "    ldrd       r12, r10, [r11, #16]\n"
                   "    ldr        r8, [r11, #24]\n"
                   "    vctp.8     r9\n"
                   "1:\n" NEXT_ROW("q1") NEXT_ROW("q2") NEXT_ROW("q3") NEXT_ROW("q4")
                   "    ldr        r1, [r11]\n"
                   "    mov        r3, r12\n"
                   "    ldr        lr, [r11, #48]\n"
                   "    ldr        r0, [r11, #28]\n"
                   "    dls        lr, lr\n"
                   "    cbnz       r0, 3f\n"
                   POSITIONS("2:\n", "")
                   "    le         lr, 2b\n"
                   "    b          4f\n"
                   POSITIONS("3:\n", AWAY)
                   "    le         lr, 3b\n"
                   "4:  adds       r7, #36\n"
                   "    add        r12, #4\n"
                   "    ldr        r0, [r11, #12]\n"
                   "    cmp        r7, r0\n"
                   "    bne        1b\n"
                   "    vpop       {d8-d15}\n"
                   "    pop        {r4-r11, pc}\n");
}

void es_mve_pointwise_narrow_s8(const es_mve_conv_args *args, const int8_t *in, int8_t *out)
{
    const es_window *w = &args->window;
    es_mve_block block = es_mve_block_of(args);
    int32_t left = w->batch * w->out_height * w->out_width;
    for (; left > 0; left -= STRIP) {
        block.first = in;
        block.out = out;
        block.tail_low = left < STRIP ? left : STRIP;
        strip(&block);
        in += STRIP * w->in_channels;
        out += STRIP * w->out_channels;
    }
}
