/* kc_capture: one attempt after another until nothing asks to start over; arguments in, results and state
 * out. The attempts run under one lua_pcall; what they own is freed by kc_capture on every path. */
#include "lua/capture/lie.h"
#include "lua/capture/capture.h"
#include "graph/pipeline.h"
#include "core/grad/tape.h"
#include "lua/capture/engine.h"
#include "lua/capture/grads.h"
#include "lua/capture/handle.h"
#include "lua/capture/interp.h"
#include "lua/capture/live.h"
#include "lua/capture/race.h"
#include "lua/capture/result.h"
#include "lua/capture/text.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* A table among the arguments. */
typedef struct met_table {
  uint32_t object, table;
  kc_leaf *leaf;
  kn_tree *tree;
  bool done; /* all its fields have been looked at */
} met_table;

typedef struct job {
  kc_cap *c;
  int nargs, first; /* Lua stack: function at first - 1, arguments from `first` on */
  const kc_arg *args;
  kc_leaf *leaves;
  uint32_t nleaves, ntables;
  kc_given *given;
  uint32_t ngiven;
  kc_live *live;
  kn_graph *graph;
  kc_res result;
  met_table *met;
  uint32_t nmet;
} job;

enum { MAX_ATTEMPTS = 200 };

/* ---- arguments ---- */

static bool is_burnt(const kc_cap *c, uint32_t leaf, int dim) {
  for (uint32_t i = 0; i < c->nburnt; i++)
    if (c->burnt[i] == leaf * 16 + (uint32_t)(dim + 1)) return true;
  return false;
}

static void add_input(kc_cap *c, kn_value *v, uint32_t leaf, int dim, const kn_tensor *given) {
  c->input = kc_more(c, &c->arena, c->input, c->ninput, sizeof *c->input);
  c->input[c->ninput++] = (kc_input){v, leaf, dim, given};
}

static kc_res make_input(kc_cap *c, const char *name, const kn_vtype *type, kn_tree *tree, kc_val *out) {
  kn_value *v = kn_add_input(&c->b, name, type);
  if (!v) return kc_fail(c, "argument");
  *tree = (kn_tree){.kind = KN_TREE_VALUE, .value = v};
  *out = kc_sym(v);
  return KC_GO;
}

static int64_t size_symbol(kc_cap *c, const char *name, int dim) {
  char buf[96];
  snprintf(buf, sizeof buf, "%.80s_%d", name, dim + 1);
  for (char *p = buf; *p; p++)
    if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9'))) *p = '_';
  return kn_symbol_intern(&c->b, buf);
}

static void guard(kc_cap *c, const char *kind, const char *name, const char *value) {
  kn_add_guard(&c->b, kind, name, value, c->base_where);
}

static bool is_handle(const kc_cap *c, uint32_t leaf) {
  return kc_is_born(c, (kc_birth){KC_BORN_ARGUMENT, leaf});
}

static bool any_handle(const kc_cap *c) {
  for (uint32_t i = 0; i < c->nbirths; i++)
    if (c->births[i].how == KC_BORN_ARGUMENT) return true;
  return false;
}

/* Where arguments are overwritten, a tensor that is given twice is one. */
static kc_res given_before(job *j, const kn_tensor *t, kc_leaf *leaf, uint32_t id, kn_tree *tree, kc_val *out,
                           bool *done) {
  kc_cap *c = j->c;
  *done = false;
  if (!any_handle(c)) return KC_GO;
  for (uint32_t i = 0; i < j->ngiven && !*done; i++) {
    const kc_given *g = &j->given[i];
    if (g->t != t) continue;
    if (is_handle(c, id) && !is_handle(c, g->leaf)) {
      kc_note_birth(c, (kc_birth){KC_BORN_ARGUMENT, g->leaf});
      return KC_RESTART;
    }
    *tree = g->tree;
    *out = g->v;
    leaf->same = g->number;
    leaf->handle = g->v.k == KC_V_HANDLE;
    *done = true;
  }
  return KC_GO;
}

/* An argument that is overwritten somewhere. How its elements lie is guarded; where not in order, sizes are
 * needed to know more. */
static kc_res handle_argument(job *j, const kn_tensor *t, kc_leaf *leaf, uint32_t id, kc_val *out) {
  kc_cap *c = j->c;
  leaf->handle = true;
  leaf->strided = t && !kn_tensor_contiguous(t);
  if (leaf->strided) {
    memcpy(leaf->strides, t->strides, sizeof leaf->strides);
    uint32_t before = c->nburnt;
    for (int d = 0; d < leaf->type.rank; d++) {
      if (kn_dim_known(leaf->type.dims[d])) continue;
      c->burnt = kc_more(c, &c->keep, c->burnt, c->nburnt, sizeof *c->burnt);
      c->burnt[c->nburnt++] = id * 16 + (uint32_t)(d + 1);
    }
    if (c->nburnt > before) return KC_RESTART;
  }
  guard(c, "layout", leaf->name, leaf->strided ? "strided" : "contiguous");
  kn_need need = {.kind = leaf->strided ? KN_NEED_strides : KN_NEED_contiguous, .input = out->v};
  memcpy(need.strides, leaf->strides, sizeof need.strides);
  kn_add_need(&c->b, need);
  kn_value *v = out->v;
  *out = kc_ref(KC_V_HANDLE, kc_handle_outside(c, v, t));
  c->han[out->id].leaf = id;
  return KC_GO;
}

/* An argument that `view` or `contiguous` is asked of. */
static void laid_argument(kc_cap *c, kc_leaf *leaf, uint32_t id, const kn_value *v) {
  for (uint32_t i = 0; i < c->nlaid; i++)
    if (c->laid[i].leaf == id) leaf->laid = c->laid[i].in_order ? KC_LAID_IN_ORDER : KC_LAID_OTHERWISE;
  if (!leaf->laid || leaf->handle) return;
  guard(c, "layout", leaf->name, leaf->laid == KC_LAID_IN_ORDER ? "contiguous" : "not contiguous");
  if (leaf->laid == KC_LAID_IN_ORDER) kn_add_need(&c->b, (kn_need){.kind = KN_NEED_contiguous, .input = v});
}

static kc_res tensor_argument(job *j, const kn_tensor *t, kc_leaf *leaf, uint32_t id, kn_tree *tree,
                              kc_val *out) {
  kc_cap *c = j->c;
  bool done;
  leaf->number = j->ngiven + 1;
  if (kn_requires_grad(t)) c->arg_requires = leaf->name;
  if (kn_tensor_is_symbolic(t)) return kc_fail(c, "the argument '%s' belongs to another graph", leaf->name);
  leaf->kind = KC_LEAF_TENSOR;
  leaf->type = t->type;
  char text[KN_TYPE_TEXT];
  for (int d = 0; d < t->type.rank; d++) {
    bool fixed = t->type.dims[d] == 1 || is_burnt(c, id, d);
    if (!fixed) leaf->type.dims[d] = size_symbol(c, leaf->name, d);
    if (fixed) {
      snprintf(text, sizeof text, "%lld", (long long)t->type.dims[d]);
      guard(c, "size", kc_format(c, "%s, dim %d", leaf->name, d + 1), text);
    }
  }
  KC_TRY(given_before(j, t, leaf, id, tree, out, &done));
  if (!done) {
    KC_TRY(make_input(c, leaf->name, &(kn_vtype){KN_V_TENSOR, leaf->type}, tree, out));
    for (int d = 0; d < t->type.rank; d++)
      if (!kn_dim_known(leaf->type.dims[d])) add_input(c, out->v, id, d, t);
    add_input(c, out->v, id, -1, t);
    if (is_handle(c, id)) KC_TRY(handle_argument(j, t, leaf, id, out));
    laid_argument(c, leaf, id, tree->value);
  }
  j->given = kc_more(c, &c->arena, j->given, j->ngiven, sizeof *j->given);
  j->given[j->ngiven++] = (kc_given){t, *tree, *out, id, leaf->number};
  snprintf(text, sizeof text, "%s of %d dimension%s", kn_dtype_name((kn_dtype)t->type.dtype), t->type.rank,
           t->type.rank == 1 ? "" : "s");
  guard(c, "dtype", leaf->name, text);
  return KC_GO;
}

static kc_res constant_argument(job *j, int idx, kc_leaf *leaf, kn_tree *tree, kc_val *out) {
  kc_cap *c = j->c;
  char buf[128];
  leaf->kind = KC_LEAF_CONST;
  leaf->value = *out = kc_import(c, idx, leaf->name);
  switch (out->k) {
  case KC_V_BOOL: *tree = (kn_tree){.kind = KN_TREE_BOOL, .i = out->i}; break;
  case KC_V_INT: *tree = (kn_tree){.kind = KN_TREE_INT, .i = out->i}; break;
  case KC_V_FLOAT: *tree = (kn_tree){.kind = KN_TREE_FLOAT, .f = out->f}; break;
  case KC_V_STRING: {
    const kc_obj *o = &c->obj[out->id];
    *tree = (kn_tree){.kind = KN_TREE_STRING, .text = o->s, .n = (uint32_t)o->n};
    break;
  }
  default: *tree = (kn_tree){.kind = KN_TREE_NIL}; break; /* nil, or an object known by identity */
  }
  if (out->k != KC_V_NIL) guard(c, "argument", leaf->name, kc_value_text(c, *out, buf, sizeof buf));
  return KC_GO;
}

static kc_res argument(job *j, int idx, kc_leaf *leaf, kn_tree *tree, kc_val *out, int depth);

static uint32_t count_keys(lua_State *L, int idx) {
  uint32_t n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) n++;
  return n;
}

/* A table met before: the same fields, which are the same inputs. That it is one table is guarded. */
static kc_res same_table(job *j, const met_table *m, uint32_t which, kc_leaf *leaf, kn_tree *tree,
                         kc_val *out) {
  if (!m->done) return kc_fail(j->c, "the argument '%s' is a table that contains itself", leaf->name);
  const char *name = leaf->name;
  *leaf = *m->leaf;
  leaf->name = name;
  leaf->same_as = which + 1;
  *tree = *m->tree;
  *out = kc_ref(KC_V_TABLE, m->table);
  guard(j->c, "argument", name, kc_format(j->c, "the same table as %s", m->leaf->name));
  return KC_GO;
}

static kc_res table_argument(job *j, int idx, kc_leaf *leaf, kn_tree *tree, kc_val *out, int depth) {
  kc_cap *c = j->c;
  lua_State *L = c->L;
  idx = lua_absindex(L, idx);
  if (depth > 60) return kc_fail(c, "the argument '%s' is nested too deeply, or contains itself", leaf->name);
  luaL_checkstack(L, 12, "capture");
  uint32_t object = kc_intern(c, idx);
  leaf->kind = KC_LEAF_TABLE;
  for (uint32_t i = 0; i < j->nmet; i++)
    if (j->met[i].object == object) return same_table(j, &j->met[i], i, leaf, tree, out);
  uint32_t id = kc_new_table_id(c, 0);
  c->tab[id].argument = true;
  c->obj[object].attempt = c->attempt; /* met again from outside, it is recognised and refused */
  c->obj[object].val = kc_ref(KC_V_TABLE, id);
  leaf->n = count_keys(L, idx);
  leaf->keys = kc_vals(c, (int)leaf->n);
  leaf->items = kc_new(c, (leaf->n + 1) * sizeof *leaf->items);
  uint32_t number = j->nmet;
  j->met = kc_more(c, &c->arena, j->met, j->nmet, sizeof *j->met);
  j->met[j->nmet++] = (met_table){object, id, leaf, tree, false};
  *tree = (kn_tree){.kind = KN_TREE_TABLE, .n = leaf->n, .same_as = number + 1};
  tree->keys = kc_new(c, (leaf->n + 1) * sizeof *tree->keys);
  tree->items = kc_new(c, (leaf->n + 1) * sizeof *tree->items);
  kc_table *t = kc_table_write(c, c->S, id);
  uint32_t i = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1), i++) {
    kc_val v;
    if (lua_type(L, -2) != LUA_TSTRING && !lua_isinteger(L, -2))
      return kc_fail(c, "the argument '%s' has a key that is no string or integer", leaf->name);
    leaf->keys[i] = kc_import(c, -2, NULL);
    leaf->items[i].name = kc_field_path(c, leaf->name, leaf->keys[i]);
    bool str = leaf->keys[i].k == KC_V_STRING;
    const kc_obj *o = str ? &c->obj[leaf->keys[i].id] : NULL;
    tree->keys[i] = str ? (kn_tree){.kind = KN_TREE_STRING, .text = o->s, .n = (uint32_t)o->n}
                        : (kn_tree){.kind = KN_TREE_INT, .i = leaf->keys[i].i};
    KC_TRY(argument(j, -1, &leaf->items[i], &tree->items[i], &v, depth + 1));
    kc_table_put(c, t, leaf->keys[i], v);
  }
  j->met[number].done = true;
  *out = kc_ref(KC_V_TABLE, id);
  return KC_GO;
}

static kc_res argument(job *j, int idx, kc_leaf *leaf, kn_tree *tree, kc_val *out, int depth) {
  kc_cap *c = j->c;
  lua_State *L = c->L;
  uint32_t id = ++j->nleaves;
  const kn_tensor *t = c->host->test_tensor(L, idx);
  if (t) return tensor_argument(j, t, leaf, id, tree, out);
  if (lua_type(L, idx) == LUA_TNUMBER && !is_burnt(c, id, -1)) {
    leaf->kind = KC_LEAF_NUMBER;
    leaf->integer = lua_isinteger(L, idx);
    kn_vtype type = {.kind = leaf->integer ? KN_V_INT : KN_V_FLOAT};
    KC_TRY(make_input(c, leaf->name, &type, tree, out));
    kn_add_need(&c->b, (kn_need){.kind = KN_NEED_exact, .input = out->v});
    add_input(c, out->v, id, -1, NULL);
    return KC_GO;
  }
  if (lua_type(L, idx) == LUA_TTABLE) {
    if (!lua_getmetatable(L, idx)) return table_argument(j, idx, leaf, tree, out, depth);
    lua_pop(L, 1);
  }
  return constant_argument(j, idx, leaf, tree, out);
}

static kc_res spec_argument(job *j, const kc_arg *a, kc_leaf *leaf, kn_tree *tree, kc_val *out) {
  kc_cap *c = j->c;
  kn_vtype type = a->type;
  leaf->spec = true;
  leaf->kind = type.kind == KN_V_TENSOR ? KC_LEAF_TENSOR : KC_LEAF_FREE;
  for (int d = 0; type.kind == KN_V_TENSOR && d < type.tensor.rank; d++)
    if (a->sizes[d]) type.tensor.dims[d] = kn_symbol_intern(&c->b, a->sizes[d]);
  leaf->type = type.tensor;
  uint32_t id = ++j->nleaves;
  KC_TRY(make_input(c, leaf->name, &type, tree, out));
  if (type.kind != KN_V_TENSOR) return KC_GO;
  leaf->number = j->ngiven + 1;
  add_input(c, out->v, id, -1, NULL);
  if (is_handle(c, id)) KC_TRY(handle_argument(j, NULL, leaf, id, out));
  laid_argument(c, leaf, id, tree->value);
  j->given = kc_more(c, &c->arena, j->given, j->ngiven, sizeof *j->given);
  j->given[j->ngiven++] = (kc_given){NULL, *tree, *out, id, leaf->number};
  return KC_GO;
}

/* A table whose fields are described. */
static kc_res described_argument(job *j, const kc_arg *a, kc_leaf *leaf, kn_tree *tree, kc_val *out,
                                 int depth) {
  kc_cap *c = j->c;
  if (a->kind == KC_ARG_SPEC) return spec_argument(j, a, leaf, tree, out);
  if (depth > 60) return kc_fail(c, "the argument '%s' is nested too deeply", leaf->name);
  j->nleaves++;
  uint32_t id = kc_new_table_id(c, 0);
  c->tab[id].argument = true;
  leaf->kind = KC_LEAF_TABLE;
  leaf->n = a->n;
  leaf->keys = kc_vals(c, (int)a->n);
  leaf->items = kc_new(c, (a->n + 1) * sizeof *leaf->items);
  *tree = (kn_tree){.kind = KN_TREE_TABLE, .n = a->n};
  tree->keys = kc_new(c, (a->n + 1) * sizeof *tree->keys);
  tree->items = kc_new(c, (a->n + 1) * sizeof *tree->items);
  kc_table *t = kc_table_write(c, c->S, id);
  for (uint32_t i = 0; i < a->n; i++) {
    kc_val v;
    const char *name = a->name[i];
    leaf->keys[i] = name ? kc_string(c, name, strlen(name)) : kc_int(a->key[i]);
    leaf->items[i].name = kc_field_path(c, leaf->name, leaf->keys[i]);
    tree->keys[i] = name ? (kn_tree){.kind = KN_TREE_STRING, .text = name, .n = (uint32_t)strlen(name)}
                         : (kn_tree){.kind = KN_TREE_INT, .i = a->key[i]};
    KC_TRY(described_argument(j, &a->fields[i], &leaf->items[i], &tree->items[i], &v, depth + 1));
    kc_table_put(c, t, leaf->keys[i], v);
  }
  *out = kc_ref(KC_V_TABLE, id);
  return KC_GO;
}

static kc_res arguments(job *j, kc_val f, kn_tree **trees, kc_val **vals) {
  kc_cap *c = j->c;
  kc_proto *p = NULL;
  int skip = 0;            /* parameters before the arguments: self */
  if (f.k == KC_V_TABLE) { /* a module: its forward has the names */
    kc_val forward = KC_NILV, o = f;
    for (int depth = 0; o.k == KC_V_TABLE && forward.k == KC_V_NIL && depth < 10; depth++) {
      KC_TRY(kc_raw_get(c, c->S, o.id, kc_string(c, "forward", 7), &forward));
      KC_TRY(kc_metafield(c, c->S, o, "__index", &o));
    }
    if (forward.k == KC_V_CLOSURE) f = forward, skip = 1;
  }
  if (f.k == KC_V_CLOSURE) {
    KC_TRY(kc_load_closure(c, f.id));
    p = c->clos[f.id].p;
    char buf[64];
    c->base_where = kn_where_intern(&c->b, kc_chunk_name(p->source, buf, sizeof buf), p->line_defined, NULL);
  }
  j->nleaves = j->ngiven = j->nmet = 0;
  j->met = NULL;
  j->given = NULL;
  j->leaves = kc_new(c, (size_t)(j->nargs + 1) * sizeof *j->leaves);
  *trees = kc_new(c, (size_t)(j->nargs + 1) * sizeof **trees);
  *vals = kc_vals(c, j->nargs);
  for (int i = 0; i < j->nargs; i++) {
    kc_leaf *leaf = &j->leaves[i];
    const char *name = p && i + skip < p->nparams ? kc_local_name(p, i + skip, 0) : NULL;
    leaf->name = name ? name : kc_format(c, "arg%d", i + 1);
    if (j->args && j->args[i].kind != KC_ARG_BY_VALUE)
      KC_TRY(described_argument(j, &j->args[i], leaf, &(*trees)[i], &(*vals)[i], 0));
    else
      KC_TRY(argument(j, j->first + i, leaf, &(*trees)[i], &(*vals)[i], 0));
  }
  if (!kn_set_args(&c->b, *trees, (uint32_t)j->nargs)) return kc_fail(c, "arguments");
  return KC_GO;
}

/* ---- one attempt ---- */

static void record_guards(kc_cap *c) {
  char buf[KN_TYPE_TEXT + 64];
  for (const kc_look *l = c->looks; l; l = l->next) {
    if (l->blind || l->dropped) continue;
    const char *text = l->slot && !l->born ? kn_vtype_text(c->b.graph, &l->slot->type, buf, sizeof buf)
                                           : kc_value_text(c, l->seen, buf, sizeof buf);
    if (l->kind == KC_LOOK_KEYS) snprintf(buf, sizeof buf, "%u keys", l->nkeys), text = buf;
    kn_add_guard(&c->b, l->slot && !l->born ? "type" : l->guard, l->name, text,
                 l->where ? l->where : c->base_where);
  }
  const kn_dtype half = (kn_dtype)c->ctx->autocast;
  if (half != KN_BOOL) kn_add_guard(&c->b, "mode", "autocast", kn_dtype_name(half), c->base_where);
}

/* What requires grad matters to the graph, which has gradients of its own. */
static void need_grads(const job *j) {
  kc_cap *c = j->c;
  if (!c->asks_grad) return;
  kn_add_need(&c->b, (kn_need){.kind = c->grad_mode ? KN_NEED_gradients : KN_NEED_no_gradients});
  for (uint32_t i = 0; i < j->ngiven; i++)
    kn_add_need(&c->b, (kn_need){.kind = KN_NEED_no_grad, .input = j->given[i].tree.value});
}

/* "digits_31": a name that can stand in the text form. */
static const char *graph_name(kc_cap *c, kc_val f) {
  if (f.k != KC_V_CLOSURE) return "main";
  const kc_proto *p = c->clos[f.id].p;
  char buf[64];
  const char *chunk = kc_chunk_name(p->source, buf, sizeof buf), *slash = strrchr(chunk, '/');
  char *name = kc_new(c, 96);
  snprintf(name, 96, "%.60s_%d", *chunk == '[' ? "chunk" : slash ? slash + 1 : chunk, p->line_defined);
  char *dot = strstr(name, ".lua");
  if (dot) memmove(dot, dot + 4, strlen(dot + 4) + 1);
  for (char *q = name; *q; q++)
    if (!((*q >= 'a' && *q <= 'z') || (*q >= 'A' && *q <= 'Z') || (*q >= '0' && *q <= '9'))) *q = '_';
  return *name >= '0' && *name <= '9' ? kc_format(c, "f_%s", name) : name;
}

static kc_res begin(job *j) {
  kc_cap *c = j->c;
  kn_status st = kn_graph_new(c->ctx, "main", &j->graph);
  if (st != KN_OK) return c->fatal = true, KC_FAIL;
  kn_builder_init(&c->b, c->ctx, j->graph);
  c->b.no_grad = c->asks_grad && !c->grad_mode;
  c->b.budget = 4 * KN_NODE_BUDGET; /* attempts at loops count too; what is left is counted at the end */
  kn_record_init(&c->record, &c->b);
  c->recording = true;
  c->record.base.all = true;
  c->record.outside = kc_outside_tensor;
  c->record.ud = c;
  c->record.in_order = kc_lie_in_order;
  c->record.reads = kc_saved_read;
  kn_value *v = kn_add_const(&c->b, (kn_scalar){KN_SCALAR_BOOL, {.b = false}});
  if (!v) return KC_FAIL;
  c->anchor = v->def;
  c->attempt++;
  c->S = kc_state_new(c);
  if (c->outer) c->outer->n = 0;
  return KC_GO;
}

/* Symbols of the graph around are arguments after the others. */
static kc_res outer_arguments(kc_cap *c) {
  kn_graph *g = c->b.graph;
  if (!c->outer || !c->outer->n) return KC_GO;
  uint32_t n = g->nargs;
  kn_tree *trees = kc_new(c, (n + c->outer->n) * sizeof *trees);
  if (n) memcpy(trees, g->args, n * sizeof *trees);
  for (uint32_t i = 0; i < c->outer->n; i++)
    trees[n + i] = (kn_tree){.kind = KN_TREE_VALUE, .value = c->outer_in[i]};
  return kn_set_args(&c->b, trees, n + c->outer->n) ? KC_GO : kc_fail(c, "arguments");
}

static kc_res too_large(kc_cap *c) {
  const kc_unrolled *most = NULL;
  for (uint32_t i = 0; i < c->nunrolled; i++)
    if (!most || c->unrolled[i].trips > most->trips) most = &c->unrolled[i];
  if (!most || !most->where)
    return kc_fail(c, "the graph has %u nodes, more than %d: too much is inlined", c->b.graph->nnodes,
                   KN_NODE_BUDGET);
  kn_fail(c->ctx, KN_LIMIT,
          "%s:%d: the graph has %u nodes, more than %d: the loop at line %d is unrolled, %lld trips; let it "
          "go on a "
          "condition on tensor data or a size, or capture its body alone",
          most->where->chunk, most->where->line, c->b.graph->nnodes, KN_NODE_BUDGET, most->where->line,
          (long long)most->trips);
  return KC_FAIL;
}

static kc_res finish(job *j, kc_state *s, const kc_values *v) {
  kc_cap *c = j->c;
  c->b.at = c->b.graph->body;
  c->b.where = NULL;
  c->S = s;
  KC_TRY(kc_check_waited(c, s));
  KC_TRY(kc_outcome_of(c, s, v, j->given, j->ngiven));
  KC_TRY(kc_lie_end(c));
  if (c->doomed) return KC_RESTART;
  KC_TRY(outer_arguments(c));
  record_guards(c);
  need_grads(j);
  if (c->b.status != KN_OK) return kc_fail(c, "graph");
  if (kn_pipeline_run(&c->b, KN_PIPELINE_CAPTURE) != KN_OK || kn_graph_finish(&c->b) != KN_OK) return KC_FAIL;
  if (c->b.graph->nnodes > KN_NODE_BUDGET) return too_large(c);
  return KC_GO;
}

static kc_res attempt(job *j) {
  kc_cap *c = j->c;
  KC_TRY(begin(j));
  kc_state *s = c->S;
  kc_val f = kc_import(c, j->first - 1, "self");
  kn_tree *trees;
  kc_val *vals;
  KC_TRY(arguments(j, f, &trees, &vals));
  const char *name = graph_name(c, f);
  c->b.graph->name = kn_arena_strdup(&c->b.graph->arena, name);
  kc_values made = {0};
  kc_res r = kc_call(c, &s, f, vals, j->nargs, -1, &made);
  if (r == KC_DEAD) { /* every path raises: a graph that does, without results */
    s = c->S = kc_state_new(c);
    made.n = 0;
    r = KC_GO;
  }
  return r == KC_GO ? finish(j, s, &made) : r;
}

static void clear(job *j) {
  kc_cap *c = j->c;
  if (c->recording) kn_record_free(&c->record);
  c->recording = false;
  kn_graph_release(j->graph);
  j->graph = NULL;
  kn_arena_free(&c->arena);
  kc_cap kept = *c;
  memset(c, 0, sizeof *c);
  c->L = kept.L, c->ctx = kept.ctx, c->host = kept.host, c->early = kept.early, c->keep = kept.keep,
  c->arena = kept.arena;
  c->objects = kept.objects, c->ids = kept.ids, c->obj = kept.obj, c->nobj = kept.nobj,
  c->attempt = kept.attempt;
  c->births = kept.births, c->nbirths = kept.nbirths;
  c->tensor_meta = kept.tensor_meta;
  c->protos = kept.protos, c->nprotos = kept.nprotos;
  c->grad_mode = kept.grad_mode, c->asks_grad = kept.asks_grad;
  c->dynamic = kept.dynamic, c->ndynamic = kept.ndynamic, c->burnt = kept.burnt, c->nburnt = kept.nburnt;
  c->laid = kept.laid, c->nlaid = kept.nlaid;
  c->models = kept.models, c->nmodels = kept.nmodels, c->outer = kept.outer, c->stack = kept.stack;
}

static int protected_capture(lua_State *L) {
  job *j = lua_touserdata(L, 1);
  kc_cap *c = j->c;
  luaL_checkstack(L, 40, "capture");
  j->first = 3;
  lua_newtable(L);
  c->objects = lua_gettop(L);
  lua_newtable(L);
  c->ids = lua_gettop(L);
  kc_find_models(c);
  if (c->before) kc_live_free_numbers(c, c->before), kc_live_recall(c, c->before);
  int top = lua_gettop(L);
  for (int n = 0;; n++) {
    j->result = attempt(j);
    if (c->doomed) kc_spread_births(c);
    if (c->doomed && (j->result != KC_FAIL || c->b.status != KN_NOMEM)) j->result = KC_RESTART;
    lua_settop(L, top);
    if (j->result != KC_RESTART) break;
    if (n == MAX_ATTEMPTS) {
      j->result = KC_FAIL;
      kn_fail(c->ctx, KN_CAPTURE, "capture starts over without end");
      break;
    }
    clear(j);
  }
  if (j->result == KC_GO) kc_live_make(c, j->leaves, j->nargs, j->graph, &j->live);
  return 0;
}

/* ---- the entry ---- */

static kn_status capture(lua_State *L, const kc_host *host, int func, int first, int nargs,
                         const kc_arg *args, kc_outer *outer, const kc_live *before, kn_graph **out,
                         kc_live **live) {
  kn_context *ctx = host->context(L);
  KN_TRY(kc_check_lua(L, ctx));
  kc_cap c = {.L = L, .ctx = ctx, .host = host, .early = args != NULL, .outer = outer, .before = before};
  job j = {.c = &c, .nargs = nargs, .args = args, .result = KC_FAIL};
  if (!lua_checkstack(L, nargs + 40) || !(j.live = kc_live_new(ctx))) return kn_fail_nomem(ctx, 0);
  kn_arena_init(&c.keep, ctx->heap);
  kn_arena_init(&c.arena, ctx->heap);
  int top = lua_gettop(L);
  func = lua_absindex(L, func);
  if (nargs) first = lua_absindex(L, first);
  bool grad = ctx->grad_enabled;
  const uint8_t autocast = ctx->autocast;
  kn_recorder *recorder = ctx->recorder;
  c.grad_mode = grad;
  ctx->grad_enabled = false;
  ctx->error[0] = 0;
  lua_pushcfunction(L, protected_capture);
  lua_pushlightuserdata(L, &j);
  lua_pushvalue(L, func);
  for (int i = 0; i < nargs; i++) {
    if (args && args[i].kind != KC_ARG_BY_VALUE)
      lua_pushnil(L);
    else
      lua_pushvalue(L, first + i);
  }
  c.stack = __builtin_frame_address(0);
  int rc = lua_pcall(L, nargs + 2, 0, 0);
  ctx->grad_enabled = grad;
  ctx->autocast = autocast;
  ctx->recorder = recorder;
  kn_status st = KN_OK;
  if (rc != LUA_OK) {
    st = KN_NOMEM;
    if (!ctx->error[0] || lua_tostring(L, -1))
      kn_fail(ctx, KN_NOMEM, "capture: %s", lua_tostring(L, -1) ? lua_tostring(L, -1) : "out of memory");
  } else if (j.result != KC_GO)
    st = c.b.status != KN_OK ? c.b.status : KN_CAPTURE;
  lua_settop(L, top);
  if (c.recording) kn_record_free(&c.record);
  kn_arena_free(&c.arena);
  kn_arena_free(&c.keep);
  if (st != KN_OK) {
    kn_graph_release(j.graph);
    kc_live_free(L, j.live);
    return st;
  }
  *out = j.graph;
  *live = j.live;
  return KN_OK;
}

kn_status kc_capture(lua_State *L, const kc_host *host, int func, int first, int nargs, const kc_arg *args,
                     const kc_live *before, kn_graph **out, kc_live **live) {
  return capture(L, host, func, first, nargs, args, NULL, before, out, live);
}

kn_status kc_capture_part(lua_State *L, const kc_host *host, int func, int first, int nargs,
                          const kc_arg *args, kc_outer *outer, kn_graph **out) {
  kc_live *live = NULL;
  KN_TRY(capture(L, host, func, first, nargs, args, outer, NULL, out, &live));
  kc_live_free(L, live);
  return KN_OK;
}
