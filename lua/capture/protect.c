/* pcall and xpcall. The function is captured into the first branch of an `if` on an `attempt`
 * (graph/attempt.h): whatever raises there when the graph runs, the second branch gives false and the
 * message. Nothing of the branch that raised can be seen then, so what the function writes to older objects
 * may only be written when nothing can raise any more; the rest is refused. An error that is certain while
 * capturing is no error of the graph at all. */
#include "lua/capture/protect.h"
#include "graph/attempt.h"
#include "graph/text.h"
#include "lua/capture/handle.h"
#include "lua/capture/text.h"
#include <stdio.h>
#include <string.h>

struct kc_protect {
  kc_protect *up;
  kc_state *before;
  kn_region *region;
  int depth;
  bool direct;     /* it protects a C function: Lua knows no line there */
  uint32_t part;   /* of kiln.fork; 0: it is none */
  kc_state *state; /* of an error that is certain; NULL: none */
  kc_val value;
};

/* ---- what was written ---- */

typedef struct search {
  kc_cap *c;
  bool tables, found;
} search;

static kc_res look(void *ud, uint32_t id, void *a, void *b) {
  search *x = ud;
  (void)b;
  x->found |= a || (x->tables ? x->c->tab[id].object || x->c->tab[id].argument : x->c->cell[id].object != 0);
  return KC_GO;
}

/* A view's contents follow from what it shows. */
static kc_res look_at_handle(void *ud, uint32_t id, void *a, void *b) {
  search *x = ud;
  const kc_hold *was = a ? a : x->c->han[id].first, *is = b;
  x->found |= !x->c->han[id].parent && was && is && was->now != is->now;
  return KC_GO;
}

bool kc_has_written(kc_cap *c, const kc_state *before) {
  search x = {c, true, false};
  kc_map_diff(&before->holds, &c->S->holds, look_at_handle, &x);
  kc_map_diff(&before->tabs, &c->S->tabs, look, &x);
  x.tables = false;
  kc_map_diff(&before->cells, &c->S->cells, look, &x);
  return x.found;
}

kc_res kc_may_raise(kc_cap *c) {
  kc_protect *p = c->protect;
  if (!p || !kc_has_written(c, p->before)) return KC_GO;
  if (p->part) { /* its error is raised by kiln.wait, and then nobody sees what it wrote */
    char line[160];
    kc_position(c, line, sizeof line);
    if (!c->parts[p->part].late) c->parts[p->part].late = kc_keep(c, *line ? line : "?");
    return KC_GO;
  }
  return kc_fail(
      c,
      "this may raise an error when the graph runs, inside a protected call that has written to a "
      "table, variable or tensor of outside by then; write after it, or return the value from the protected "
      "function");
}

/* ---- errors that are certain ---- */

kc_res kc_protected_raise(kc_cap *c, kc_val value, bool *certain) {
  kc_protect *p = c->protect;
  *certain = p && c->b.at == p->region && !kn_region_may_raise(p->region);
  if (!*certain) return kc_may_raise(c);
  p->state = c->S;
  p->value = value;
  return KC_DEAD;
}

bool kc_protects_directly(const kc_cap *c) {
  return c->protect && c->protect->direct && c->S->depth == c->protect->depth;
}

bool kc_protects_this(const kc_cap *c) { return c->protect && c->S->depth == c->protect->depth + 1; }

/* "file:line: message", as error() puts it. */
kc_val kc_placed(kc_cap *c, kc_val message, const kn_where *where) {
  char pos[200];
  const kn_where *w = kn_where_user(where);
  if (!w || w->line <= 0) return message;
  snprintf(pos, sizeof pos, "%s:%d: ", w->chunk, w->line);
  return kc_join_texts(c, kc_string(c, pos, strlen(pos)), message);
}

/* ---- the call ---- */

static void give(kc_cap *c, kc_state *s, bool ok, const kc_val *v, int n) {
  s->ret = kc_vals(c, n + 1);
  s->ret[0] = kc_bool(ok);
  for (int i = 0; i < n; i++) s->ret[i + 1] = v[i];
  s->nret = n + 1;
}

static kc_res handle(kc_cap *c, kc_state **s, kc_val handler, kc_val message, kc_values *made) {
  made->v = kc_vals(c, 1);
  made->v[0] = message;
  made->n = 1;
  return handler.k == KC_V_NONE ? KC_GO : kc_call(c, s, handler, &message, 1, 1, made);
}

/* Nothing can raise: the branch goes on as the program does. */
static void take_out(kc_cap *c, kc_if *f) {
  kn_region *r = f->n->regions[0];
  while (r->first) kn_node_move_before(r->first, f->n);
  kn_node_remove(f->n);
  c->b.at = f->parent;
}

/* The error is certain: the state is that in which it was raised. */
static kc_res surely_failed(kc_cap *c, kc_protect *p, kc_if *f, kc_state **s, kc_val handler) {
  kc_state *now = c->S = p->state;
  kc_values made = {0};
  take_out(c, f);
  while (now->depth > p->depth) now->top = now->top->up, now->depth--;
  KC_TRY(handle(c, &now, handler, p->value, &made));
  give(c, now, false, made.v, made.n);
  *s = c->S = now;
  return KC_GO;
}

static kc_res failed(kc_cap *c, kc_if *f, kc_state *before, kc_val handler, kc_state **out) {
  kc_values made = {0};
  kn_vtype type = {.kind = KN_V_INT};
  *out = c->S = before;
  c->b.at = f->n->regions[1];
  c->b.where = kc_where(c);
  kn_node *n = kn_add_node(&c->b, KN_NODE_caught, NULL, NULL, 0, &type, 1);
  KC_TRY(handle(c, out, handler, kc_caught_text(c, n ? n->out[0] : kc_dummy(c)), &made));
  give(c, *out, false, made.v, made.n);
  return KC_GO;
}

static kc_res join(kc_cap *c, kc_if *f, int kind, kc_state *ok, kc_state *failed, kc_state **s) {
  kc_outs *side = kc_new(c, 3 * sizeof *side);
  if (ok) side[0] = (kc_outs){.n = 1, .sel = kc_int(kind), .o = {{kind, ok}}};
  if (failed) side[1] = (kc_outs){.n = 1, .sel = kc_int(kind), .o = {{kind, failed}}};
  c->b.at = f->parent;
  c->S = *s;
  /* an attempt is the condition of one `if` only: what is told from how it went asks an output */
  f->cond = kc_if_out(c, f, kc_value(c, kc_bool(true)), kc_value(c, kc_bool(false)), NULL, "ok");
  KC_TRY(kc_end_if(c, f, &side[0], &side[1], &side[2]));
  *s = c->S = side[2].o[0].s;
  return KC_GO;
}

static kc_res protect(kc_cap *c, kc_state **s, kc_val f, kc_val handler, const kc_val *args, int n,
                      kc_values *out) {
  kc_if *made = kc_new(c, sizeof *made);
  kc_protect *p = kc_new(c, sizeof *p);
  kn_vtype type = {.kind = KN_V_BOOL};
  int base = c->nstop, nest = c->nest, kind = kc_new_stop(c, -1, (*s)->top->pc, 1 << 27, false, 0);
  c->b.where = kc_where(c);
  kn_node *try = kn_add_node(&c->b, KN_NODE_attempt, NULL, NULL, 0, &type, 1);
  if (!try) return kc_fail(c, "pcall");
  KC_TRY(kc_begin_if(c, made, *s, try->out[0]));
  *p = (kc_protect){.up = c->protect,
                    .before = kc_snapshot(c, *s),
                    .region = made->n->regions[0],
                    .depth = (*s)->depth,
                    .direct = f.k == KC_V_CFUNCTION,
                    .part = c->part_begins ? (*s)->part : 0,
                    .value = KC_NILV};
  c->part_begins = false;
  kc_state *go = c->S = kc_snapshot(c, *s), *rest = NULL;
  kc_values results = {0};
  c->b.at = p->region;
  c->protect = p;
  kc_res r = kc_call(c, &go, f, args, n, -1, &results);
  c->protect = p->up;
  if (r != KC_GO && r != KC_DEAD) return r;
  if (r == KC_GO) give(c, go, true, results.v, results.n);
  c->nest = nest;
  c->b.at = made->parent;
  if (r == KC_GO && !kn_region_may_raise(p->region)) {
    take_out(c, made);
    *s = c->S = go;
  } else if (p->state)
    KC_TRY(surely_failed(c, p, made, s, handler));
  else {
    KC_TRY(kc_may_raise(c)); /* of a protected call around this one */
    KC_TRY(failed(c, made, kc_snapshot(c, *s), handler, &rest));
    KC_TRY(join(c, made, kind, r == KC_GO ? go : NULL, rest, s));
  }
  c->nstop = base;
  *out = (kc_values){(*s)->ret, (*s)->nret};
  (*s)->ret = NULL;
  (*s)->nret = 0;
  return KC_GO;
}

kc_res kc_m_pcall(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  if (!n) return kc_complain(c, "bad argument #1 to 'pcall' (value expected)");
  return protect(c, s, a[0], (kc_val){.k = KC_V_NONE}, a + 1, n - 1, out);
}

kc_res kc_m_xpcall(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  if (n < 2 || (a[1].k != KC_V_CLOSURE && a[1].k != KC_V_CFUNCTION)) {
    if (n > 1 && (a[1].k == KC_V_UNION || a[1].k == KC_V_POISON))
      return kc_fail(c, "the message handler of this xpcall is a %s", kc_kind_name(a[1]));
    return kc_complain(c, "bad argument #2 to 'xpcall' (function expected, got %s)",
                       n > 1 ? kc_type_name(a[1]) : "no value");
  }
  return protect(c, s, a[0], a[1], a + 2, n - 2, out);
}
