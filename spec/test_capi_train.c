/* Training from C: a step captured in Lua is run by a session; steps that fail anywhere change nothing, to
 * the bit; checkpoints are written whole or not at all, and restored whole or not at all. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp */
#include "bindings/c/session.h"
#include "bindings/lua/kiln_lua.h"
#include "graph/file.h"
#include "graph/file_keys.h"
#include "graph/tensors_file.h"
#include "graph/text.h"
#include "spec/capi.h"
#include "spec/scarce.h"
#include <lauxlib.h>
#include <lualib.h>
#include <unistd.h>

/* ---- the model ---- */

/* Parameters, buffers, the optimiser's moments and counters, random numbers, a loop, calls of the host
 * between its parts, and an error of its own after all else. */
static const char model_text[] =
    "local kiln = require 'kiln'\n"
    "local nn, F = kiln.nn, kiln.nn.functional\n"
    "kiln.manual_seed(3)\n"
    "local net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, "
    "3))\n"
    "local opt = kiln.optim.Adam(net:parameters(), { lr = 0.05 })\n"
    "local at = kiln.ignore(function() end, { name = 'at' })\n"
    "local count = 0\n"
    "local function step(x, y, most, trips)\n"
    "  at(1)\n"
    "  count = count + 1\n"
    "  local loss = F.cross_entropy(net(x), y)\n"
    "  at(2)\n"
    "  opt:zero_grad()\n"
    "  loss:backward()\n"
    "  at(3)\n"
    "  opt:step()\n"
    "  at(4)\n"
    "  local sum = 0.0\n"
    "  for i = 1, trips do sum = sum + loss:item() * i end\n"
    "  if sum > most then error('the loss is ' .. sum) end\n"
    "  return loss:item()\n"
    "end\n"
    "local s = kiln.spec\n"
    "local g = kiln.script(step, { inputs = { s('float32', { 'N', 4 }), s('int64', { 'N' }), 'float', "
    "'integer' } })\n"
    "for _ = 1, 2 do g(kiln.randn(6, 4), kiln.randint(1, 4, { 6 }), 1e9, 5) end\n"
    "g:save(...)\n";

static char folder[] = "/tmp/kiln-capi-XXXXXX", model[64], kept[64], other[64];

static void make_model(void) {
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(model, sizeof model, "%s/model.kiln", folder);
  snprintf(kept, sizeof kept, "%s/kept.safetensors", folder);
  snprintf(other, sizeof other, "%s/other.safetensors", folder);
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  ck_assert_msg(luaL_loadstring(L, model_text) == LUA_OK, "%s", lua_tostring(L, -1));
  lua_pushstring(L, model);
  ck_assert_msg(lua_pcall(L, 1, 0, 0) == LUA_OK, "%s", lua_tostring(L, -1));
  lua_close(L);
}

/* ---- a host that trains ---- */

typedef struct host {
  scarce memory;
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s;
  int fail_at;   /* the call of the host that fails, 1 to 4; 0: none */
  int cancel_at; /* … that cancels the run */
  bool nested;   /* … 1 tries what is only for sessions that do not run */
} host;

enum { ROWS = 6, CALLS = 4 };

static kiln_status at(void *ud, const kiln_value *args, int nargs, kiln_value *results, int nresults) {
  host *h = ud;
  (void)results;
  ck_assert(nargs == 1 && nresults == 0 && args[0].kind == KILN_INTEGER);
  if (h->cancel_at == args[0].i) kiln_session_cancel(h->s);
  if (h->nested && args[0].i == 1) {
    ck_assert_int_eq(kiln_session_checkpoint(h->s, other), KILN_STATE);
    ck_assert_int_eq(kiln_session_restore(h->s, kept), KILN_STATE);
  }
  return h->fail_at == args[0].i ? KILN_IO : KILN_OK;
}

static void open_session(host *h) {
  GOOD(kiln_session_new(h->ctx, h->g, &h->s), kiln_error(h->ctx));
  GOOD(kiln_session_bind(h->s, "at", at, h), kiln_session_error(h->s));
}

static void open_host(host *h, const char *backend) {
  char error[256] = "";
  *h = (host){.memory.left = -1};
  kiln_context_options o = {
      .size = sizeof o, .alloc = scarce_alloc, .alloc_ud = &h->memory, .threads = 1, .backend = backend};
  GOOD(kiln_context_new(&o, &h->ctx, error, sizeof error), error);
  GOOD(kiln_graph_load(h->ctx, model, NULL, &h->g), kiln_error(h->ctx));
  open_session(h);
}

static void close_host(host *h) {
  kiln_session_free(h->s);
  kiln_graph_release(h->g);
  kiln_context_free(h->ctx);
}

static void set_inputs(host *h, int step) {
  float x[ROWS * 4];
  int64_t y[ROWS];
  kiln_tensor *tx, *ty;
  for (int i = 0; i < ROWS * 4; i++) x[i] = (float)((i * 7 + step * 13) % 11) / 5 - 1;
  for (int i = 0; i < ROWS; i++) y[i] = (i + step) % 3 + 1;
  GOOD(kiln_tensor_new(h->ctx, KILN_FLOAT32, 2, (int64_t[]){ROWS, 4}, x, &tx), kiln_error(h->ctx));
  GOOD(kiln_tensor_new(h->ctx, KILN_INT64, 1, (int64_t[]){ROWS}, y, &ty), kiln_error(h->ctx));
  GOOD(kiln_session_set_tensor(h->s, "x", tx), kiln_session_error(h->s));
  GOOD(kiln_session_set_tensor(h->s, "y", ty), kiln_session_error(h->s));
  GOOD(kiln_session_set_float(h->s, "most", 1e9), kiln_session_error(h->s));
  GOOD(kiln_session_set_integer(h->s, "trips", 5), kiln_session_error(h->s));
  kiln_tensor_release(tx);
  kiln_tensor_release(ty);
}

static double train(host *h, int step) {
  double loss = 0;
  set_inputs(h, step);
  GOOD(kiln_session_run(h->s), kiln_session_error(h->s));
  GOOD(kiln_session_get_float(h->s, "1", &loss), kiln_session_error(h->s));
  return loss;
}

/* All that runs change: the bytes of every slot and the random numbers. */
typedef struct state {
  char bytes[4096];
  size_t n;
  kn_random random;
} state;

static void add(state *x, const void *p, size_t n) {
  ck_assert_uint_le(x->n + n, sizeof x->bytes);
  memcpy(x->bytes + x->n, p, n);
  x->n += n;
}

static state state_of(host *h) {
  state x = {.random = *kn_session_random(h->s->core)};
  for (int i = 0; i < kiln_graph_slot_count(h->g); i++) {
    kiln_value v = {KILN_NIL};
    GOOD(kiln_session_get_slot(h->s, i, &v), kiln_session_error(h->s));
    if (v.kind == KILN_TENSOR)
      add(&x, kiln_tensor_data(v.tensor),
          (size_t)kiln_tensor_numel(v.tensor) * kiln_dtype_size(kiln_tensor_dtype(v.tensor)));
    else {
      add(&x, &v.kind, sizeof v.kind);
      add(&x, v.kind == KILN_FLOAT ? (void *)&v.f : (void *)&v.i, v.kind == KILN_BOOLEAN ? 0 : 8);
      add(&x, &v.b, sizeof v.b);
    }
    kiln_value_clear(&v);
  }
  return x;
}

static bool same(const state *a, const state *b) {
  return a->n == b->n && !memcmp(a->bytes, b->bytes, a->n) && a->random.seed == b->random.seed &&
         a->random.offset == b->random.offset;
}

#define UNCHANGED(h, before, ...)                                                                            \
  do {                                                                                                       \
    const state now_ = state_of(h);                                                                          \
    if (!same(&now_, before)) ck_abort_msg(__VA_ARGS__);                                                     \
  } while (0)

static const char *const backends[] = {"ref", NULL};
enum { BACKENDS = 2 };

/* ---- steps that fail ---- */

/* Runs it so that it fails, and again as if nothing had been. */
static void fails(host *h, kiln_status status, const char *part, const char *how) {
  const state before = state_of(h);
  BAD(status, part, kiln_session_run(h->s), kiln_session_error(h->s));
  UNCHANGED(h, &before, "%s: a step that failed has changed the state", how);
}

static void fail_in_all_ways(host *h, int step) {
  char how[40];
  kiln_tensor *bad;
  set_inputs(h, step);
  for (int i = 1; i <= CALLS; i++) {
    h->fail_at = i;
    snprintf(how, sizeof how, "host call %d", i);
    fails(h, KILN_RAISED, "host function 'at' failed", how);
    h->fail_at = 0;
    if (i == CALLS) break; /* nothing after it asks */
    h->cancel_at = i;
    snprintf(how, sizeof how, "cancelled in host call %d", i);
    fails(h, KILN_CANCELLED, "", how);
    h->cancel_at = 0;
  }
  kiln_session_cancel(h->s);
  fails(h, KILN_CANCELLED, "cancelled before it began", "cancelled before");
  GOOD(kiln_session_set_float(h->s, "most", -1e9), "");
  fails(h, KILN_RAISED, "the loss is ", "an error of the program");
  GOOD(kiln_session_set_float(h->s, "most", 1e9), "");
  GOOD(kiln_tensor_new(h->ctx, KILN_INT64, 1, (int64_t[]){ROWS}, (int64_t[]){1, 2, 3, 1, 2, 9}, &bad), "");
  GOOD(kiln_session_set_tensor(h->s, "y", bad), "");
  fails(h, KILN_INDEX, "9", "a class that there is not");
  kiln_tensor_release(bad);
  GOOD(kiln_tensor_new(h->ctx, KILN_INT64, 1, (int64_t[]){2}, NULL, &bad), "");
  GOOD(kiln_session_set_tensor(h->s, "y", bad), "");
  fails(h, KILN_SHAPE, "size N", "sizes that disagree");
  kiln_tensor_release(bad);
}

/* Every limit of steps until one is enough. */
static int fail_by_limits(host *h, int step) {
  set_inputs(h, step);
  for (int limit = 1;; limit++) {
    const state before = state_of(h);
    kiln_session_set_step_limit(h->s, (uint64_t)limit);
    const kiln_status st = kiln_session_run(h->s);
    kiln_session_set_step_limit(h->s, 0);
    if (st == KILN_OK) return limit;
    ck_assert_int_eq(st, KILN_LIMIT);
    UNCHANGED(h, &before, "a step that %d steps were too few for has changed the state", limit);
  }
}

START_TEST(a_step_that_fails_changes_nothing) {
  for (int b = 0; b < BACKENDS; b++) {
    host h, undisturbed;
    open_host(&h, backends[b]);
    open_host(&undisturbed, backends[b]);
    for (int step = 0; step < 4; step++) {
      fail_in_all_ways(&h, step);
      if (step == 2)
        ck_assert_int_gt(fail_by_limits(&h, step), 4);
      else
        train(&h, step);
      train(&undisturbed, step);
      const state a = state_of(&h), c = state_of(&undisturbed);
      if (!same(&a, &c)) ck_abort_msg("step %d after failures is not what it would have been", step);
    }
    close_host(&h);
    close_host(&undisturbed);
  }
}
END_TEST

/* Lets the n-th allocation of a step fail, for every n, until a step succeeds that none was refused to.
 * `fresh`: in a session that has not run before. Gives how many failed. */
static int starve(host *h, const state *before, bool once, bool fresh) {
  int failed = 0;
  for (long n = 0;; n++) {
    if (fresh) {
      kiln_session_free(h->s);
      open_session(h);
      GOOD(kiln_session_restore(h->s, kept), kiln_session_error(h->s));
      set_inputs(h, 5);
    }
    scarce_begin(&h->memory, n, once);
    const kiln_status st = kiln_session_run(h->s);
    const bool refused = scarce_end(&h->memory);
    if (st == KILN_OK && !refused) return failed;
    if (st == KILN_OK) { /* made up for */
      GOOD(kiln_session_restore(h->s, kept), kiln_session_error(h->s));
      continue;
    }
    if (st != KILN_NOMEM) ck_abort_msg("allocation %ld failing: %s", n, kiln_session_error(h->s));
    UNCHANGED(h, before, "a step whose allocation %ld failed has changed the state", n);
    failed++;
  }
}

START_TEST(a_step_without_memory_changes_nothing) {
  for (int b = 0; b < BACKENDS; b++) {
    host h;
    open_host(&h, backends[b]);
    for (int step = 0; step < 3; step++) train(&h, step);
    GOOD(kiln_session_checkpoint(h.s, kept), kiln_session_error(h.s));
    const state before = state_of(&h);
    train(&h, 5);
    const state after = state_of(&h);
    for (int mode = 0; mode < 4; mode++) {
      GOOD(kiln_session_restore(h.s, kept), kiln_session_error(h.s));
      set_inputs(&h, 5);
      const int failed = starve(&h, &before, mode % 2, mode / 2);
      if (mode / 2) ck_assert_int_gt(failed, 100); /* the others have all that they need */
      UNCHANGED(&h, &after, "the step that succeeded is not what it would have been (mode %d)", mode);
    }
    close_host(&h);
    unlink(kept);
  }
}
END_TEST

/* ---- checkpoints ---- */

START_TEST(resumed_training_gives_the_same_bits) {
  for (int b = 0; b < BACKENDS; b++) {
    host h;
    double losses[10];
    open_host(&h, backends[b]);
    for (int step = 0; step < 10; step++) {
      if (step == 4) GOOD(kiln_session_checkpoint(h.s, kept), kiln_session_error(h.s));
      losses[step] = train(&h, step);
    }
    const state end = state_of(&h);
    GOOD(kiln_session_restore(h.s, kept), kiln_session_error(h.s)); /* back, in the same session */
    for (int step = 4; step < 7; step++) ck_assert(train(&h, step) == losses[step]);
    close_host(&h);
    open_host(&h, backends[b]);
    kiln_session_seed(h.s, 77);
    train(&h, 9); /* all of it is taken back */
    GOOD(kiln_session_restore(h.s, kept), kiln_session_error(h.s));
    unlink(kept); /* nothing of the file is used from here on */
    for (int step = 4; step < 10; step++) ck_assert(train(&h, step) == losses[step]);
    UNCHANGED(&h, &end, "what was resumed has come to another end");
    close_host(&h);
  }
}
END_TEST

START_TEST(a_checkpoint_is_a_plain_safetensors_file) {
  host h;
  open_host(&h, NULL);
  train(&h, 0);
  GOOD(kiln_session_checkpoint(h.s, kept), kiln_session_error(h.s));
  kn_context *c = suite_context();
  kn_tensors_file f;
  OK(c, kn_tensors_open(c, kept, &f));
  ck_assert_uint_eq(f.header.ntensors, (uint32_t)kiln_graph_slot_count(h.g));
  for (int i = 0; i < kiln_graph_slot_count(h.g); i++) {
    kiln_info slot = {.size = sizeof slot};
    kiln_value v;
    kn_tensor *t;
    GOOD(kiln_graph_slot(h.g, i, &slot), "");
    const kn_st_tensor *st = kn_safetensors_tensor(&f.header, (kn_span){slot.name, strlen(slot.name)});
    ck_assert_msg(st != NULL, "%s is not there", slot.name);
    OK(c, kn_tensors_get(c, &f, st, &t));
    GOOD(kiln_session_get_slot(h.s, i, &v), "");
    if (slot.kind == KILN_TENSOR)
      ck_assert(!memcmp(kn_tensor_data(t), kiln_tensor_data(v.tensor), (size_t)(st->end - st->begin)));
    else
      ck_assert(st->rank == 0 && st->type.dtype == KN_I64 && *(int64_t *)kn_tensor_data(t) == v.i);
    kn_tensor_release(t);
    kiln_value_clear(&v);
  }
  kn_tensors_close(&f);
  suite_done(c);
  h.nested = true; /* not while it runs */
  train(&h, 1);
  BAD(KILN_IO, "nowhere", kiln_session_checkpoint(h.s, "/nowhere/at/all"), kiln_session_error(h.s));
  BAD(KILN_IO, "nowhere", kiln_session_restore(h.s, "/nowhere/at/all"), kiln_session_error(h.s));
  close_host(&h);
  unlink(kept);
}
END_TEST

typedef struct change { /* of a checkpoint: a tensor without, with another type, or one more; metadata */
  const char *drop, *retype, *resize, *more, *key, *value;
} change;

static kn_span span(const char *s) { return (kn_span){s, strlen(s)}; }

/* The checkpoint `kept` with a change, as `other`, with a checksum that holds. */
static void write_changed(const change *x) {
  kn_context *c = suite_context();
  kn_tensors_file f;
  kn_named_tensor list[64];
  kn_st_meta meta[8];
  uint32_t n = 0, nmeta = 0;
  OK(c, kn_tensors_open(c, kept, &f));
  for (uint32_t i = 0; i < f.header.ntensors; i++) {
    const kn_st_tensor *t = &f.header.tensors[i];
    kn_tensor **to = &list[n].tensor;
    if (x->drop && !strcmp(x->drop, t->name.s)) continue;
    list[n++].name = t->name;
    kn_type type = t->type;
    bool changed = true;
    if (x->retype && !strcmp(x->retype, t->name.s))
      type.dtype = KN_I32;
    else if (x->resize && !strcmp(x->resize, t->name.s))
      type.dims[type.rank++] = 2;
    else
      changed = false;
    OK(c, changed ? kn_tensor_new(c, &type, to) : kn_tensors_get(c, &f, t, to));
    if (changed) memset(kn_tensor_data(*to), 0, (*to)->storage->bytes);
  }
  if (x->more) {
    list[n].name = span(x->more);
    list[n].tensor = kn_tensor_retain(list[0].tensor);
    n++;
  }
  for (uint32_t i = 0; i < f.header.nmeta; i++) {
    kn_st_meta m = f.header.meta[i];
    if (!strcmp(m.key.s, KN_KEY_CHECKSUM)) m.value = span(KN_NO_SUM);
    if (x->key && !strcmp(m.key.s, x->key)) {
      if (!x->value) continue;
      m.value = span(x->value);
    }
    meta[nmeta++] = m;
  }
  OK(c, kn_tensors_save(c, other, list, n, meta, nmeta));
  for (uint32_t i = 0; i < n; i++) kn_tensor_release(list[i].tensor);
  kn_tensors_close(&f);
  suite_done(c);
}

START_TEST(what_does_not_fit_is_named) {
  static const struct {
    change change;
    kiln_status status;
    const char *part;
  } rows[] = {
      {{0}, KILN_OK, NULL},
      {{.drop = "net[1].bias"}, KILN_ARG, "does not fit graph"},
      {{.drop = "net[1].bias"}, KILN_ARG, "\"net[1].bias\" is missing"},
      {{.more = "net[1].extra"}, KILN_ARG, "\"net[1].extra\" is no slot of the graph"},
      {{.retype = "net[1].weight"}, KILN_ARG, "\"net[1].weight\" is int32[5,4] instead of float32[5,4]"},
      {{.resize = "net[5].bias"}, KILN_ARG, "\"net[5].bias\" is float32[3,2] instead of float32[3]"},
      {{.retype = "opt.state[1].step"}, KILN_ARG, "\"opt.state[1].step\" is int32[] instead of integer"},
      {{.resize = "opt.state[1].step"}, KILN_ARG, "\"opt.state[1].step\" is int64[2] instead of integer"},
      {{.drop = "net[1].bias", .more = "b", .retype = "net[1].weight", .resize = "net[5].bias"},
       KILN_ARG,
       "\"net[1].bias\" is missing, \"net[5]"},
      {{.key = KN_KEY_CHECKPOINT, .value = "2"}, KILN_VERSION, "version 2"},
      {{.key = KN_KEY_CHECKPOINT, .value = "one"}, KILN_FORMAT, "is no version"},
      {{.key = KN_KEY_CHECKPOINT}, KILN_FORMAT, "not a checkpoint"},
      {{.key = KN_KEY_RANDOM}, KILN_FORMAT, "no state of random numbers"},
      {{.key = KN_KEY_RANDOM, .value = "1"}, KILN_FORMAT, "no state of random numbers"},
      {{.key = KN_KEY_RANDOM, .value = "1 99999999999999999999"}, KILN_FORMAT, "no state of random numbers"},
      {{.key = KN_KEY_CHECKSUM}, KILN_FORMAT, "no kiln.checksum"},
  };
  host h;
  open_host(&h, NULL);
  for (int step = 0; step < 3; step++) train(&h, step);
  GOOD(kiln_session_checkpoint(h.s, kept), kiln_session_error(h.s));
  const state then = state_of(&h);
  train(&h, 3);
  const state now = state_of(&h);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    write_changed(&rows[i].change);
    if (rows[i].status == KILN_OK) {
      GOOD(kiln_session_restore(h.s, other), kiln_session_error(h.s));
      UNCHANGED(&h, &then, "a copy of the checkpoint is another");
      train(&h, 3);
    } else
      BAD(rows[i].status, rows[i].part, kiln_session_restore(h.s, other), kiln_session_error(h.s));
    UNCHANGED(&h, &now, "row %zu: what could not be restored has changed the state", i);
  }
  BAD(KILN_FORMAT, "not a checkpoint", kiln_session_restore(h.s, model), kiln_session_error(h.s));
  UNCHANGED(&h, &now, "a graph's file was restored");
  close_host(&h);
  unlink(kept);
  unlink(other);
}
END_TEST

static void write_bytes(const char *path, const char *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  ck_assert(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
}

static size_t read_bytes(const char *path, char *bytes, size_t room) {
  FILE *f = fopen(path, "rb");
  ck_assert_ptr_nonnull(f);
  size_t n = fread(bytes, 1, room, f);
  fclose(f);
  ck_assert_uint_lt(n, room);
  return n;
}

START_TEST(damage_is_seen) {
  static char bytes[1 << 16];
  host h;
  open_host(&h, NULL);
  train(&h, 0);
  GOOD(kiln_session_checkpoint(h.s, kept), kiln_session_error(h.s));
  train(&h, 1);
  const state now = state_of(&h);
  const size_t n = read_bytes(kept, bytes, sizeof bytes);
  for (size_t i = 0; i < n; i++) { /* a bit flipped in every byte, and the file cut there */
    bytes[i] ^= (char)(1 << i % 8);
    write_bytes(other, bytes, n);
    bytes[i] ^= (char)(1 << i % 8);
    if (kiln_session_restore(h.s, other) == KILN_OK)
      ck_abort_msg("a bit of byte %zu was flipped and not seen", i);
    write_bytes(other, bytes, i);
    if (kiln_session_restore(h.s, other) == KILN_OK) ck_abort_msg("a file of %zu bytes was restored", i);
  }
  UNCHANGED(&h, &now, "a damaged checkpoint was restored in part");
  write_bytes(other, bytes, n);
  GOOD(kiln_session_restore(h.s, other), kiln_session_error(h.s));
  close_host(&h);
  unlink(kept);
  unlink(other);
}
END_TEST

/* With every allocation failing in turn, once and for good: the old checkpoint stays what it is. */
static void starve_checkpoint(host *h, const state *before, const char *kept_bytes, size_t n) {
  static char bytes[1 << 16];
  for (int once = 0; once < 2; once++)
    for (long k = 0;; k++) {
      scarce_begin(&h->memory, k, once);
      const kiln_status st = kiln_session_checkpoint(h->s, kept);
      const bool refused = scarce_end(&h->memory);
      ck_assert_msg(read_bytes(kept, bytes, sizeof bytes) == n && !memcmp(bytes, kept_bytes, n),
                    "the checkpoint that was there is another (%ld)", k);
      if (st == KILN_OK && !refused) break;
      ck_assert_int_eq(st, KILN_NOMEM);
      UNCHANGED(h, before, "allocation %ld failing has changed the state", k);
      ck_assert_int_lt(k, 2000);
    }
}

START_TEST(without_memory_nothing_is_half_done) {
  static char bytes[1 << 16];
  host h;
  open_host(&h, NULL);
  train(&h, 0);
  GOOD(kiln_session_checkpoint(h.s, kept), kiln_session_error(h.s));
  const size_t n = read_bytes(kept, bytes, sizeof bytes);
  const state then = state_of(&h);
  starve_checkpoint(&h, &then, bytes, n);
  /* Where the restored state is the present one, half of it could not be told: another one. */
  train(&h, 1);
  GOOD(kiln_session_checkpoint(h.s, other), kiln_session_error(h.s));
  const state now = state_of(&h);
  ck_assert(!same(&then, &now));
  for (int once = 0; once < 2; once++)
    for (long k = 0;; k++) {
      scarce_begin(&h.memory, k, once);
      const kiln_status st = kiln_session_restore(h.s, kept);
      if (!scarce_end(&h.memory)) {
        GOOD(st, kiln_session_error(h.s));
        UNCHANGED(&h, &then, "it was not restored whole");
        GOOD(kiln_session_restore(h.s, other), kiln_session_error(h.s));
        break;
      }
      ck_assert_int_eq(st, KILN_NOMEM);
      UNCHANGED(&h, &now, "allocation %ld failing has restored something", k);
    }
  close_host(&h);
  unlink(kept);
  unlink(other);
}
END_TEST

/* Numbers of every kind and a tensor without elements; parameters that no run writes stay out of it. */
START_TEST(slots_of_every_kind) {
  static const char text[] = "graph all(%x: float32[2]) {\n"
                             "  slot param \"w\": float32[2]\n"
                             "  slot state \"t\": float32[2]\n"
                             "  slot state \"i\": integer = 1\n"
                             "  slot state \"n\": number = 2\n"
                             "  slot state \"b\": boolean = true\n"
                             "  slot state \"e\": float32[0,3]\n"
                             "  %w = param \"w\"\n"
                             "  %t = load_state \"t\"\n"
                             "  %i = load_state \"i\"\n"
                             "  %b = load_state \"b\"\n"
                             "  %e = load_state \"e\"\n"
                             "  %xw: float32[2] = mul %x, %w\n"
                             "  %sum: float32[2] = add %t, %xw\n"
                             "  %more: integer = lua.add %i, %i\n"
                             "  %half: float = lua.div %i, %more\n"
                             "  %not: boolean = lua.not %b\n"
                             "  store_state \"t\", %sum\n"
                             "  store_state \"i\", %more\n"
                             "  store_state \"n\", %half\n"
                             "  store_state \"b\", %not\n"
                             "  return %sum, %e\n"
                             "}\n";
  kn_context *c = suite_context();
  kn_entry entry = {.name = "all"};
  OK(c, kn_graph_parse(c, text, sizeof text - 1, &entry.graph));
  for (uint32_t i = 0; i < entry.graph->nslots; i++) {
    kn_slot *slot = entry.graph->slots[i];
    if (slot->type.kind == KN_V_TENSOR) OK(c, kn_tensor_new(c, &slot->type.tensor, &slot->tensor));
  }
  memcpy(kn_tensor_data(entry.graph->slots[0]->tensor), (float[]){1, 2}, 8);
  OK(c, kn_file_save(c, other, &entry, 1));
  kn_graph_release(entry.graph);
  suite_done(c);
  kiln_context *ctx;
  kiln_tensor *x;
  host h = {0};
  GOOD(kiln_context_new(NULL, &ctx, NULL, 0), "");
  GOOD(kiln_graph_load(ctx, other, NULL, &h.g), kiln_error(ctx));
  GOOD(kiln_session_new(ctx, h.g, &h.s), kiln_error(ctx));
  GOOD(kiln_tensor_new(ctx, KILN_FLOAT32, 1, (int64_t[]){2}, (float[]){3, 4}, &x), kiln_error(ctx));
  GOOD(kiln_session_set_tensor(h.s, "x", x), "");
  for (int before = 0; before < 3; before++) { /* n is an integer first, and a float then */
    GOOD(kiln_session_checkpoint(h.s, kept), kiln_session_error(h.s));
    const state then = state_of(&h);
    GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
    GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
    const state now = state_of(&h);
    ck_assert(!same(&then, &now));
    GOOD(kiln_session_restore(h.s, kept), kiln_session_error(h.s));
    UNCHANGED(&h, &then, "it is not what it was");
    GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  }
  kiln_tensor_release(x);
  kiln_session_free(h.s);
  kiln_graph_release(h.g);
  kiln_context_free(ctx);
  unlink(kept);
  unlink(other);
}
END_TEST

static void remove_all(void) {
  unlink(model);
  rmdir(folder);
}

START_TEST(the_model_is_made) {
  make_model();
  ck_assert_int_eq(atexit(remove_all), 0);
}
END_TEST

SUITE("capi_train", the_model_is_made, a_step_that_fails_changes_nothing,
      a_step_without_memory_changes_nothing, resumed_training_gives_the_same_bits,
      a_checkpoint_is_a_plain_safetensors_file, what_does_not_fit_is_named, damage_is_seen,
      without_memory_nothing_is_half_done, slots_of_every_kind)
