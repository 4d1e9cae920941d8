/* Engine functions are called for real with the recorder on: arguments become Lua values (symbolic tensors
 * and numbers as userdata, tables as copies), what they do to tensors becomes nodes, results come back. */
#include "lua/capture/engine.h"
#include "lua/capture/grads.h"
#include "lua/capture/growing.h"
#include "lua/capture/lie.h"
#include "graph/attempt.h"
#include "lua/capture/protect.h"
#include "lua/capture/race.h"
#include "lua/capture/text.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* A tensor that went over, or was found behind one that came back. */
typedef struct crossed {
  kn_tensor *t; /* borrowed from its userdata, which the memo holds */
  kc_val v;
  kn_value *before;
} crossed;

typedef struct crossing {
  kc_cap *c;
  kc_state *s;
  const char *name; /* of the function */
  uint64_t place;   /* of the call */
  uint32_t first;   /* value that it makes */
  int memo;         /* stack index: shadow id → copy, copy → shadow id; tensor → its userdata */
  crossed *all;
  uint32_t n;
} crossing;

/* ---- over ---- */

enum { MAX_TABLE_DEPTH = 60 };

static kc_res push_value(crossing *x, kc_val a, int depth);

static kc_res push_table(crossing *x, uint32_t id, int depth) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  if (depth > MAX_TABLE_DEPTH) return kc_fail(c, "a table given to '%s' is nested too deeply", x->name);
  luaL_checkstack(L, 12, "capture");
  if (lua_rawgeti(L, x->memo, id) == LUA_TTABLE) return KC_GO;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawseti(L, x->memo, id);
  lua_pushvalue(L, -1);
  lua_pushinteger(L, id);
  lua_rawset(L, x->memo);
  kc_val k = KC_NILV, v;
  for (;;) {
    KC_TRY(kc_next(c, x->s, id, k, &k, &v));
    if (k.k == KC_V_NIL) return KC_GO;
    KC_TRY(push_value(x, k, depth + 1));
    KC_TRY(push_value(x, v, depth + 1));
    lua_rawset(L, -3);
  }
}

static crossed *crossed_as(crossing *x, kc_val a) {
  for (uint32_t i = 0; i < x->n; i++)
    if (kc_same(x->all[i].v, a)) return &x->all[i];
  return NULL;
}

static crossed *note_crossed(crossing *x, kn_tensor *t, kc_val v) {
  x->all = kc_more(x->c, &x->c->arena, x->all, x->n, sizeof *x->all);
  x->all[x->n] = (crossed){t, v, t->value};
  return &x->all[x->n++];
}

static kc_res no_memory(kc_cap *c) { return kc_fail(c, "%s", kc_format(c, "%s", kn_error(c->ctx))); }

/* The engine's tensor for a handle: of a view, one that shows that of what it shows. */
static kc_res make_handle(crossing *x, uint32_t id, kn_tensor **out) {
  kc_cap *c = x->c;
  const kc_handle_info info = c->han[id];
  const kc_hold *h = kc_hold_of(c, x->s, id);
  crossed *parent = info.parent ? crossed_as(x, kc_ref(KC_V_HANDLE, info.parent)) : NULL;
  if (!h) return kc_fail(c, "internal: a tensor is not known on this path");
  if (info.parent) {
    kn_status st = kn_record_view(&c->record, parent->t, info.view, h->in, h->now, h->of, out);
    return st == KN_OK ? KC_GO : no_memory(c);
  }
  if (kn_record_tensor(&c->record, h->now, out) != KN_OK) return no_memory(c);
  if (info.strided) memcpy((*out)->strides, info.strides, sizeof info.strides);
  kn_status st = kn_record_track(&c->record, *out);
  if (st == KN_OK) return KC_GO;
  kn_tensor_release(*out);
  return no_memory(c);
}

static kc_res push_tensor(crossing *x, kc_val a) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  const crossed *k = crossed_as(x, a);
  if (k) {
    lua_rawgetp(L, x->memo, k->t);
    return KC_GO;
  }
  luaL_checkstack(L, 12, "capture");
  kn_tensor *t;
  if (a.k == KC_V_HANDLE) {
    uint32_t parent = c->han[a.id].parent;
    if (!parent) kc_touch(c, x->s, (kc_place){KC_PLACE_TENSOR, a.id, KC_NILV}, false);
    if (parent) {
      KC_TRY(push_tensor(x, kc_ref(KC_V_HANDLE, parent)));
      lua_pop(L, 1);
    }
    KC_TRY(make_handle(x, a.id, &t));
  } else {
    kn_value *v = a.k == KC_V_UNION ? kc_chosen(c, x->s, a.u) : a.v;
    if (!v) return kc_fail(c, "'%s' is called with a %s", x->name, kc_kind_name(a));
    if (kn_record_tensor(&c->record, v, &t) != KN_OK) return no_memory(c);
  }
  c->host->push_tensor(L, t);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, x->memo, t);
  note_crossed(x, t, a);
  return KC_GO;
}

static kc_res push_value(crossing *x, kc_val a, int depth) {
  kc_cap *c = x->c;
  a = kc_resolve(c, x->s, a);
  luaL_checkstack(c->L, 12, "capture");
  switch (a.k) {
  case KC_V_HANDLE: return push_tensor(x, a);
  case KC_V_SYM:
    if (kc_is_tensor(a)) return push_tensor(x, a);
    c->host->push_scalar(c->L, &(kn_scalar){KN_SCALAR_SYMBOL, {.value = a.v}});
    return KC_GO;
  case KC_V_TEXT: return kc_settle_text(c, a);
  case KC_V_TABLE: return push_table(x, a.id, depth);
  case KC_V_CLOSURE: return kc_fail(c, "a Lua function is given to '%s'", x->name);
  case KC_V_UNION: return push_tensor(x, a);
  case KC_V_POISON:
  case KC_V_NONE: return kc_fail(c, "'%s' is called with a %s", x->name, kc_kind_name(a));
  default: kc_push(c, a); return KC_GO;
  }
}

/* ---- back ---- */

static kc_res take_value(crossing *x, int idx, const char *path, int depth, kc_val *out);

static kc_res take_table(crossing *x, int idx, int depth, kc_val *out) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  if (depth > MAX_TABLE_DEPTH) return kc_fail(c, "a table from '%s' is nested too deeply", x->name);
  luaL_checkstack(L, 12, "capture");
  idx = lua_absindex(L, idx);
  lua_pushvalue(L, idx);
  if (lua_rawget(L, x->memo) == LUA_TNUMBER) {
    *out = kc_ref(KC_V_TABLE, (uint32_t)lua_tointeger(L, -1));
    lua_pop(L, 1);
    return KC_GO;
  }
  lua_pop(L, 1);
  uint32_t id = kc_table_new(c, x->s);
  lua_pushvalue(L, idx);
  lua_pushinteger(L, id);
  lua_rawset(L, x->memo);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    kc_val k, v;
    KC_TRY(take_value(x, -2, NULL, depth + 1, &k));
    KC_TRY(take_value(x, -1, NULL, depth + 1, &v));
    kc_table_put(c, kc_table_write(c, x->s, id), k, v);
  }
  *out = kc_ref(KC_V_TABLE, id);
  return KC_GO;
}

/* A real tensor is the function's own making, or something from outside that no guard would watch. */
static kc_res take_real(crossing *x, kn_tensor *t, kn_value **out) {
  kc_cap *c = x->c;
  bool met = kn_record_knows(&c->record, t); /* an op had it as input */
  if (atomic_load(&t->refs) != 1 + met || !t->storage || atomic_load(&t->storage->refs) != 1)
    return kc_fail(
        c,
        "'%s' gives a tensor from outside, which would not be looked at again; keep it in a variable or "
        "field",
        x->name);
  if (met) return (*out = kn_record_value(&c->record, t)) ? KC_GO : kc_fail(c, "slot");
  kn_slot *slot;
  bool again;
  return kc_import_tensor(c, t, kc_format(c, "const.%u", c->b.graph->nslots + 1), KN_SLOT_CONST, &slot, out,
                          &again);
}

/* One that went over is what it was; a view of a handle is one, too; another is new. */
static kc_res take_tensor(crossing *x, kn_tensor *t, kc_val *out) {
  kc_cap *c = x->c;
  kn_record_shown shown;
  kn_value *v = t->value;
  for (uint32_t i = 0; i < x->n; i++)
    if (x->all[i].t == t) {
      *out = x->all[i].v;
      return KC_GO;
    }
  kc_birth birth = {KC_BORN_HERE, x->place};
  if (kn_record_view_of(&c->record, t, &shown)) {
    kc_val parent;
    if (shown.parent->value)
      KC_TRY(take_tensor(x, shown.parent, &parent));
    else {
      if (!(v = kn_record_value(&c->record, shown.parent))) return kc_fail(c, "slot");
      parent = kc_is_born(c, birth) ? kc_ref(KC_V_HANDLE, kc_handle_new(c, x->s, v)) : kc_sym(v);
      note_crossed(x, shown.parent, parent);
    }
    if (!(v = kn_record_value(&c->record, t))) return kc_fail(c, "view");
    if (parent.k == KC_V_UNION)
      return kc_fail(c, "'%s' gives a view of one tensor or another, depending on tensor data", x->name);
    kn_record_view_of(&c->record, t, &shown); /* as it is now */
    *out =
        parent.k == KC_V_HANDLE ? kc_ref(KC_V_HANDLE, kc_handle_view(c, x->s, parent.id, &shown)) : kc_sym(v);
  } else {
    if (!v) KC_TRY(take_real(x, t, &v));
    *out = kc_is_born(c, birth) ? kc_ref(KC_V_HANDLE, kc_handle_new(c, x->s, v)) : kc_sym(v);
  }
  note_crossed(x, t, *out);
  return KC_GO;
}

/* f.lua:3, or "kiln/add_() <- f.lua:3" where eager would surely write with gradients on: then errors about
 * the tensor that is overwritten are those of what does it. */
static const kn_where *place_of_write(const crossing *x) {
  kc_cap *c = x->c;
  const char *dot = strrchr(x->name, '.'), *name = dot ? dot + 1 : x->name;
  if (!strncmp(name, "__", 2)) name = "copy_"; /* t[k] = v */
  if (c->b.no_grad || c->b.at != c->b.graph->body) return kc_where(c);
  return kn_where_intern(&c->b, kc_format(c, "kiln/%s()", name), 0, kc_where(c));
}

/* Gradients of what was computed before the call must not read it: kc_saved_read. */
static void note_overwritten(const crossing *x, const crossed *k) {
  kc_cap *c = x->c;
  if (!k->before || (k->v.k == KC_V_HANDLE && c->han[k->v.id].parent)) return;
  int n = k->v.k == KC_V_UNION ? k->v.u->n : 1;
  for (int i = 0; i < n; i++) {
    kc_val a = k->v.k == KC_V_UNION ? k->v.u->alt[i].v : k->v;
    const kn_value *v = k->v.k == KC_V_UNION ? kc_tensor_value(c, x->s, a) : k->before;
    c->overwritten = kc_more(c, &c->arena, c->overwritten, c->noverwritten, sizeof *c->overwritten);
    c->overwritten[c->noverwritten++] =
        (struct kc_overwritten){v, x->first, k->v.k == KC_V_UNION ? NULL : c->b.at, c->record.writer};
  }
}

/* What the call wrote to. */
static kc_res take_writes(crossing *x) {
  kc_cap *c = x->c;
  for (uint32_t i = 0; i < x->n; i++) {
    const crossed *k = &x->all[i];
    if (k->t->value == k->before) continue;
    note_overwritten(x, k);
    if (k->v.k == KC_V_SYM)
      KC_TRY(kc_must_be_handle(c, k->before));
    else if (k->v.k == KC_V_UNION)
      KC_TRY(kc_set_chosen(c, x->s, k->v.u, k->t->value));
    else if (!c->han[k->v.id].parent) {
      kc_touch(c, x->s, (kc_place){KC_PLACE_TENSOR, k->v.id, KC_NILV}, true);
      c->han[k->v.id].with_grad |= kn_record_wrote_with_grad(&c->record, k->t);
      if (!c->han[k->v.id].written) c->han[k->v.id].written = place_of_write(x);
      kc_set_contents(c, x->s, k->v.id, k->t->value);
    }
  }
  return KC_GO;
}

static kc_res take_value(crossing *x, int idx, const char *path, int depth, kc_val *out) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  kn_scalar s;
  kn_tensor *t = c->host->test_tensor(L, idx);
  if (t) return take_tensor(x, t, out);
  if (lua_type(L, idx) == LUA_TTABLE) return take_table(x, idx, depth, out);
  if (lua_type(L, idx) == LUA_TUSERDATA && c->host->test_scalar(L, idx, &s) && s.kind == KN_SCALAR_SYMBOL)
    *out = kc_sym(s.as.value);
  else
    *out = kc_import(c, idx, path);
  return KC_GO;
}

/* ---- sizes that must be known ---- */

static bool has_size(const kn_value *v, int64_t dim) {
  if (v->type.kind != KN_V_TENSOR) return false;
  for (int d = 0; d < v->type.tensor.rank; d++) {
    int64_t size = v->type.tensor.dims[d];
    if (size == dim || size == KN_DIM_UNKNOWN) return true;
  }
  return false;
}

kc_res kc_burn_sizes(kc_cap *c, kc_state *s, const kc_val *args, int n) {
  uint32_t before = c->nburnt;
  for (uint32_t i = 0; i < c->ninput; i++) {
    const kc_input *in = &c->input[i];
    bool hit = !args;
    if (in->dim < 0) continue;
    for (int k = 0; k < n && !hit; k++)
      hit = kc_is_tensor(args[k]) &&
            has_size(kc_tensor_value(c, s, args[k]), in->value->type.tensor.dims[in->dim]);
    if (!hit) continue;
    c->burnt = kc_more(c, &c->keep, c->burnt, c->nburnt, sizeof *c->burnt);
    c->burnt[c->nburnt++] = in->leaf * 16 + (uint32_t)(in->dim + 1);
  }
  return c->nburnt > before ? KC_RESTART : KC_GO;
}

/* Which tensors share elements depends on how they lie, and that on sizes. */
static kc_res need_layout(crossing *x) {
  kc_cap *c = x->c;
  KC_TRY(kc_burn_sizes(c, x->s, NULL, 0));
  return kc_fail(
      c,
      "whether '%s' gives a view or a copy depends on sizes that only the graph will know, and it matters "
      "here; clone the tensor first",
      x->name);
}

/* ---- the call ---- */

/* The engine's own sentence where the message ends in it: what is before is a position of no use here. */
static const char *message_of(kc_cap *c) {
  const char *m = lua_tostring(c->L, -1), *own = kn_error(c->ctx);
  if (!m) return "error";
  size_t n = strlen(m), k = strlen(own);
  const char *name = !strncmp(own, "argument ", 9) ? kc_called_name(c) : NULL; /* Lua's names stand before */
  if (name) return kc_format(c, "%s: %s", name, own);
  return kc_format(c, "%s", k && k <= n && !strcmp(m + n - k, own) ? own : m);
}

/* Numbers in a table are burnt in as others are. */
static kc_res burn_inside(kc_cap *c, kc_state *s, kc_val a, int depth) {
  kc_val k = KC_NILV, v;
  if (a.k != KC_V_TABLE) return kc_burn(c, a);
  if (depth > MAX_TABLE_DEPTH || kc_list_of(s, a.id)) return KC_GO;
  for (;;) {
    KC_TRY(kc_next(c, s, a.id, k, &k, &v));
    if (k.k == KC_V_NIL) return KC_GO;
    KC_TRY(burn_inside(c, s, kc_resolve(c, s, v), depth + 1));
  }
}

static kc_res engine_failed(kc_cap *c, kc_state *s, const kc_val *args, int n) {
  for (int i = 0; i < n; i++) KC_TRY(burn_inside(c, s, args[i], 0)); /* perhaps it needed to know a number */
  const char *m = message_of(c);
  KC_TRY(kc_burn_sizes(c, s, args, n)); /* or a size; and the sentence names those */
  for (int i = 0; i < n; i++)
    if (args[i].k == KC_V_SYM && args[i].v->type.kind != KN_V_TENSOR)
      return kc_fail(c, "%s (argument %d is a %s)", m, i + 1, kc_kind_name(args[i]));
  for (int i = 0; i < n; i++)
    if (args[i].k == KC_V_TABLE) return kc_fail(c, "%s", m); /* numbers may hide in it */
  kn_status st = c->ctx->error_status;
  bool wrong =
      st == KN_ARG || st == KN_SHAPE || st == KN_DTYPE || st == KN_INDEX; /* eager would raise, too */
  return wrong ? kc_engine_complain(c, m) : kc_fail(c, "%s", m);
}

static kc_res take_results(crossing *x, int first, const kc_val *args, int n, kc_values *out) {
  kc_cap *c = x->c;
  out->n = lua_gettop(c->L) - first + 1;
  out->v = kc_vals(c, out->n);
  const char *path = NULL;
  if (n == 2 && kc_is_tensor(args[0]) && args[1].k == KC_V_STRING)
    path = kc_format(c, "tensor.%s", c->obj[args[1].id].s);
  for (int i = 0; i < out->n; i++) KC_TRY(take_value(x, first + i, path, 0, &out->v[i]));
  return KC_GO;
}

void kc_note_made(kc_cap *c, uint32_t first, uint64_t place) {
  if (c->b.graph->nvalues < first) return;
  c->made = kc_more(c, &c->arena, c->made, c->nmade, sizeof *c->made);
  c->made[c->nmade++] = (kc_made){first, c->b.graph->nvalues + 1, place};
}

/* Of the nodes made since `mark`: may one raise? */
static bool may_raise_after(const kc_cap *c, const kn_node *mark) {
  bool may = false;
  for (const kn_node *n = mark ? mark->next : c->b.at->first; n; n = n->next) may |= kn_node_may_raise(n);
  return may;
}

static kc_res engine_step(kc_cap *c, kc_state **sp, kc_val *args, void *ud, kc_values *out) {
  const kc_val f = ((kc_val *)ud)[0];
  int n = (int)((kc_val *)ud)[1].i;
  lua_State *L = c->L;
  crossing x = {.c = c, .s = *sp, .name = c->obj[f.id].path ? c->obj[f.id].path : "?", .place = kc_here(*sp)};
  int top = lua_gettop(L);
  uint32_t first = x.first = c->b.graph->nvalues + 1;
  bool done;
  c->record.unsure = false;
  KC_TRY(kc_grad_field(c, sp, args, n, out, &done));
  if (!done) KC_TRY(kc_list_call(c, sp, f, args, n, out, &done));
  if (done) return KC_GO;
  kc_lie_begin(c, x.place);
  x.s = *sp;
  luaL_checkstack(L, n + 16, "capture");
  lua_newtable(L);
  x.memo = lua_gettop(L);
  kc_push_object(c, f.id);
  for (int i = 0; i < n; i++) {
    kc_res r = push_value(&x, args[i], 0);
    if (r != KC_GO) return kn_record_forget(&c->record), lua_settop(L, top), r;
  }
  c->b.where = kc_where(c);
  c->ctx->error[0] = 0;
  c->ctx->error_status = KN_OK;
  c->ctx->recorder = &c->record.base;
  kn_node *mark = c->b.at->last;
  int rc = lua_pcall(L, n, LUA_MULTRET, 0);
  c->ctx->recorder = NULL;
  if (rc == LUA_ERRMEM) lua_error(L);
  kc_res r = c->record.unsure ? need_layout(&x) : KC_GO;
  kc_note_made(c, first, x.place);
  if (r == KC_GO && rc == LUA_OK && c->protect && may_raise_after(c, mark)) r = kc_may_raise(c);
  if (r == KC_GO && rc == LUA_OK) r = take_writes(&x);
  if (r == KC_GO)
    r = rc == LUA_OK ? take_results(&x, x.memo + 1, args, n, out) : engine_failed(c, x.s, args, n);
  if (r == KC_GO && rc == LUA_OK) r = kc_lie_after(c, out);
  kn_record_forget(&c->record);
  lua_settop(L, top);
  if (r == KC_GO && c->b.status != KN_OK) r = kc_fail(c, "%s", x.name);
  return r;
}

/* A value of one kind or another in a table that is given: KC_V_NONE in *out when there is none. */
static kc_res find_union(kc_cap *c, kc_state *s, kc_val a, int depth, kc_val *out) {
  kc_val k = KC_NILV, v;
  if (a.k != KC_V_TABLE || depth > MAX_TABLE_DEPTH || kc_list_of(s, a.id)) return KC_GO;
  while (out->k == KC_V_NONE) {
    KC_TRY(kc_next(c, s, a.id, k, &k, &v));
    if (k.k == KC_V_NIL) break;
    v = kc_resolve(c, s, v);
    if (v.k == KC_V_UNION) *out = v;
    KC_TRY(find_union(c, s, v, depth + 1, out));
  }
  return KC_GO;
}

typedef struct table_ud {
  kc_val f;
  const kc_val *args;
  int n;
} table_ud;

static kc_res again(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  const table_ud *x = ud;
  (void)o; /* what is known now narrows it where it stands */
  return kc_call_engine(c, s, x->f, x->args, x->n, out);
}

kc_res kc_call_engine(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, kc_values *out) {
  kc_val ud[2] = {f, kc_int(n)}, choice = {.k = KC_V_NONE};
  for (int i = 0; i < n && choice.k == KC_V_NONE; i++)
    KC_TRY(find_union(c, *s, kc_resolve(c, *s, args[i]), 0, &choice));
  if (choice.k == KC_V_NONE) return kc_distribute(c, s, args, n, engine_step, ud, out);
  table_ud x = {f, args, n};
  return kc_distribute(c, s, &choice, 1, again, &x, out);
}

/* ---- real tensors met as inputs of ops: plain numbers, and data made on the way ----
 * Called from inside an op: nothing here may raise. */

static kc_val scalar_key(kn_scalar s) {
  return s.kind == KN_SCALAR_BOOL  ? kc_bool(s.as.b)
         : s.kind == KN_SCALAR_INT ? kc_int(s.as.i)
                                   : kc_float(s.as.f);
}

static kn_value *number_value(kc_cap *c, kn_tensor *t) {
  kn_scalar s = kn_scalar_read(t);
  for (uint32_t i = 0; i < c->npool; i++) {
    const struct kc_pooled *p = &c->pool[i];
    if (p->type.kind == KN_V_TENSOR && p->key.k != KC_V_NONE && p->type.tensor.dtype == t->type.dtype &&
        kc_same(p->key, scalar_key(s)))
      return p->v;
  }
  kn_value *k = kn_add_const(&c->b, s), *v = kn_add_to_tensor(&c->b, k, kn_tensor_dtype(t));
  if (!v) return NULL;
  kc_hoist(c, k->def);
  kc_hoist(c, v->def);
  struct kc_pooled *pool = kn_arena_grow(&c->arena, c->pool, c->npool, sizeof *pool);
  if (!pool) return v;
  c->pool = pool;
  c->pool[c->npool++] = (struct kc_pooled){scalar_key(s), v, v->type};
  return v;
}

kn_value *kc_outside_tensor(void *ud, kn_tensor *t) {
  kc_cap *c = ud;
  kn_region *at = c->b.at;
  const kn_where *where = c->b.where;
  c->b.at = c->b.graph->body;
  c->b.where = NULL;
  kn_value *v = NULL;
  if (t->type.rank == 0 && t->type.device == KN_CPU && t->storage)
    v = number_value(c, t);
  else {
    char name[32];
    snprintf(name, sizeof name, "const.%u", c->b.graph->nslots + 1);
    kn_slot *slot =
        kn_add_slot(&c->b, KN_SLOT_CONST, name, &(kn_vtype){.kind = KN_V_TENSOR, .tensor = t->type}, t);
    v = kn_add_slot_node(&c->b, KN_NODE_tensor, slot);
    if (v) kc_hoist(c, v->def);
  }
  c->b.at = at;
  c->b.where = where;
  return v;
}
