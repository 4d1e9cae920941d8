/* Control flow of one prototype: blocks, dominators, natural loops, liveness, and which blocks can still be
 * reached going forward. Correctness of capture does not depend on it, except liveness; the size of the graph
 * does. */
#ifndef KC_CFG_H
#define KC_CFG_H
#include "lua/capture/bytecode.h"

typedef struct kc_regs { /* a set of registers */
  uint64_t bits[4];
} kc_regs;
static inline bool kc_regs_has(const kc_regs *s, int r) { return s->bits[r >> 6] >> (r & 63) & 1; }
enum {
  KC_VARARGS = 255
}; /* in sets of registers: the function's extra arguments; no register is called that */

typedef struct kc_bits { /* a set of blocks */
  uint64_t *w;
} kc_bits;
static inline bool kc_bit(kc_bits s, int b) { return s.w[b >> 6] >> (b & 63) & 1; }

typedef struct kc_block {
  int start, end; /* instructions [start, end] */
  int nnext, next[2];
  int dom;   /* immediate dominator; itself for block 0 */
  int order; /* reverse postorder; -1: never reached */
  int joins; /* edges that lead here from reached blocks */
  kc_bits
      reach; /* blocks reachable going forward: an edge back to a loop's header counts as the loop's exits */
} kc_block;

typedef enum kc_loop_kind { KC_LOOP_WHILE, KC_LOOP_NUMERIC, KC_LOOP_GENERIC } kc_loop_kind;
typedef struct kc_loop {
  int header, last; /* block; last instruction of the loop */
  kc_loop_kind kind;
  int forloop; /* NUMERIC: pc of its FORLOOP */
  kc_bits in;
} kc_loop;

struct kc_flow {
  int nblocks, nloops;
  kc_block *block;
  int *block_of; /* by pc */
  kc_loop *loop;
  kc_regs *live; /* by pc: registers whose values may still be read from here on */
};

/* Computed once per prototype, in the arena. NULL when out of memory. */
kc_flow *kc_flow_of(kn_arena *a, kc_proto *p);
/* Registers that are read after the instruction, which is a call, and that it does not set. */
kc_regs kc_live_beside(const kc_proto *p, int pc);
/* The loop whose header is block b, or NULL. */
const kc_loop *kc_loop_at(const kc_flow *f, int b);
/* Where the edge from → to leads going forward: `to`, or where the loop it closes can be left to. Calls fn.
 */
void kc_forward(const kc_flow *f, int from, int to, void (*fn)(void *ud, int block), void *ud);

#endif
