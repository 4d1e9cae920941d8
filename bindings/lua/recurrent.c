/* lstm, gru, rnn_tanh, rnn_relu and lstm_cell as PyTorch calls them: states and weights in tables of their
 * own. The rows of the op table have them in one list. */
#include "bindings/lua/args.h"

/* The tensors of the table at idx behind those there already. */
static kn_status add_table(kl_args *a, int idx, const char *what) {
  lua_State *L = a->L;
  size_t more = lua_rawlen(L, idx);
  if (more > (size_t)(KN_MAX_INPUTS - a->n))
    return kn_fail(a->ctx, KN_LIMIT, "%s: at most %d tensors at once", a->name, KN_MAX_INPUTS);
  for (size_t i = 1; i <= more; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i);
    a->in[a->n] = kl_test_tensor(L, -1);
    kn_status st = a->in[a->n] ? KN_OK
                               : kn_fail(a->ctx, KN_ARG, "%s: entry %zu of %s must be a tensor, got %s",
                                         a->name, i, what, kl_kind(L, -1));
    lua_pop(L, 1); /* the table keeps it */
    if (st != KN_OK) return st;
    a->n++;
  }
  return KN_OK;
}

/* One tensor, a table of some, or nil where that may be. */
static kn_status add_some(kl_args *a, const char *what, bool optional) {
  int idx = a->next++;
  if (idx <= a->top && lua_type(a->L, idx) == LUA_TTABLE) return add_table(a, idx, what);
  kn_tensor *t = idx <= a->top ? kl_test_tensor(a->L, idx) : NULL;
  if (t) {
    a->in[a->n++] = t;
    return KN_OK;
  }
  if (optional && (idx > a->top || lua_isnil(a->L, idx))) return KN_OK;
  return kn_fail(a->ctx, KN_ARG, "%s: %s must be a tensor or a table of tensors, got %s", a->name, what,
                 idx <= a->top ? kl_kind(a->L, idx) : "nil");
}

static kn_status read_input(kl_args *a) {
  kn_tensor *x = a->next <= a->top ? kl_test_tensor(a->L, a->next) : NULL;
  if (!x)
    return kn_fail(a->ctx, KN_ARG, "%s: input 1 must be a tensor, got %s", a->name,
                   a->next <= a->top ? kl_kind(a->L, a->next) : "nil");
  a->next++;
  a->in[a->n++] = x;
  return KN_OK;
}

/* (x, states or nil, {w_ih, w_hh, …} [, has_biases, num_layers, dropout, train, bidirectional, batch_first])
 */
static kn_status read_network(kl_args *a) {
  KN_TRY(read_input(a));
  KN_TRY(add_some(a, "the states", true));
  KN_TRY(add_some(a, "the weights", false));
  KN_TRY(kl_args_fields(a));
  return kl_args_options(a);
}

/* (x, {h, c}, w_ih, w_hh [, b_ih, b_hh]) */
static kn_status read_cell(kl_args *a) {
  KN_TRY(read_input(a));
  KN_TRY(add_some(a, "the states", false));
  while (a->next <= a->top && !lua_isnil(a->L, a->next)) {
    if (a->n == a->row->max_in) return kn_fail(a->ctx, KN_ARG, "%s: takes at most %d tensors", a->name, a->n);
    KN_TRY(add_some(a, "a weight", false));
  }
  while (a->next <= a->top && lua_isnil(a->L, a->next)) a->next++;
  return kl_args_fields(a);
}

static int call(lua_State *L, kn_op op, kn_status (*read)(kl_args *)) {
  kn_context *ctx = kl_context(L);
  const kn_op_info *row = &kn_ops[op];
  int top = lua_gettop(L);
  kl_args a;
  kn_tensor *out[KN_MAX_OUTPUTS], **slots[KN_MAX_OUTPUTS];
  for (int i = 0; i < row->outs; i++) slots[i] = kl_reserve_tensor(L);
  kl_args_open(&a, L, ctx, op, row->name, 1, top);
  kn_status st = read(&a);
  if (st == KN_OK) st = kl_args_apply(&a, false, out);
  kl_check(L, st);
  for (int i = 0; i < row->outs; i++) kl_put_tensor(slots[i], out[i]);
  kl_tell_collector(L);
  return row->outs;
}

static int lstm(lua_State *L) { return call(L, KN_OP_lstm, read_network); }
static int gru(lua_State *L) { return call(L, KN_OP_gru, read_network); }
static int rnn_tanh(lua_State *L) { return call(L, KN_OP_rnn_tanh, read_network); }
static int rnn_relu(lua_State *L) { return call(L, KN_OP_rnn_relu, read_network); }
static int lstm_cell(lua_State *L) { return call(L, KN_OP_lstm_cell, read_cell); }

void kl_open_recurrent(lua_State *L) {
  static const luaL_Reg functions[] = {{"lstm", lstm},           {"gru", gru},
                                       {"rnn_tanh", rnn_tanh},   {"rnn_relu", rnn_relu},
                                       {"lstm_cell", lstm_cell}, {NULL, NULL}};
  kl_set_methods(L, functions, true, true);
}
