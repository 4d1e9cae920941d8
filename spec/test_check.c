/* KILN_CHECK against a target that computes several nodes as one and lies: the fault is found and named, with
 * its line, wherever it stands; what nobody can see is no fault. */
#define _GNU_SOURCE
#ifdef KN_HAS_CUDA
#include "backends/cuda/provider.h"
#include "spec/cuda/software.h"
#endif
#include "backends/ref/ref.h"
#include "bindings/lua/kiln_lua.h"
#include "graph/exec.h"
#include "graph/file.h"
#include "spec/tensors.h"
#include <lauxlib.h>
#include <lualib.h>
#include <unistd.h>

/* Takes all but views, everything of a part as one: what only its own nodes read is rubbish when it has run.
 */
typedef struct liar {
  kn_target target;
  kn_op about;     /* the results of this op … */
  float factor;    /* … are so much larger */
  int after, seen; /* but for the first ones */
} liar;

struct kn_program {
  const kn_node *const *nodes;
  uint32_t n;
  bool *inside; /* by node: nobody else reads its first result */
};

static bool liar_supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                          size_t size) {
  (void)ctx;
  (void)self;
  const kn_op_info *row = &kn_ops[n->op];
  if (row->op_class == KN_CLASS_VIEW || row->flags & (KN_FLAG_WRITES | KN_FLAG_DYNAMIC) || n->nout > 1)
    return snprintf(why, size, "nothing to lie about"), false;
  return kn_node_static(n, types, why, size);
}

static kn_status liar_compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  (void)self;
  kn_program *q = kn_calloc(ctx->heap, 1, sizeof *q);
  ck_assert_ptr_nonnull(q);
  *q = (kn_program){part->nodes, part->n, kn_calloc(ctx->heap, part->n, 1)};
  ck_assert_ptr_nonnull(q->inside);
  part->together[0] = part->n;
  for (uint32_t i = 0; i < part->n; i++) {
    uint32_t v = part->nodes[i]->out[0]->id, reads = 0;
    for (uint32_t k = i + 1; k < part->n; k++)
      for (uint32_t m = 0; m < part->nodes[k]->ntensor; m++) reads += part->nodes[k]->in[m]->id == v;
    q->inside[i] = reads && reads == part->reads[v];
  }
  *out = q;
  return KN_OK;
}

static kn_status liar_run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *s) {
  liar *l = self;
  (void)s;
  for (uint32_t i = 0; i < p->n; i++) {
    const kn_node *n = p->nodes[i];
    kn_tensor *in[KN_MAX_INPUTS], *out = vals[n->out[0]->id];
    for (uint32_t k = 0; k < n->ntensor; k++) in[k] = vals[n->in[k]->id];
    KN_TRY(kn_ops[n->op].kernel(ctx, n->attrs, in, (int)n->ntensor, &out));
    if (n->op != l->about || l->seen++ < l->after) continue;
    for (int64_t k = 0; k < kn_tensor_numel(out); k++) set_element(out, k, element(out, k) * l->factor);
  }
  for (uint32_t i = 0; i < p->n; i++) {
    kn_tensor *out = vals[p->nodes[i]->out[0]->id];
    if (p->inside[i])
      memset(kn_tensor_data(out), 0xff, (size_t)kn_tensor_numel(out) * kn_dtype_size(kn_tensor_dtype(out)));
  }
  return KN_OK;
}

static void liar_free(void *self, kn_context *ctx, kn_program *p) {
  (void)self;
  kn_free(ctx->heap, p->inside, p->n);
  kn_free(ctx->heap, p, sizeof *p);
}

/* Captured and saved by kiln itself; its lines are those of this text. */
static const char model[] = "local w = kiln.full({ 3, 3 }, 0.25)\n"
                            "local function layer(x)\n"
                            "  return (x:matmul(w) + 1):tanh() * 2\n" /* line 3 */
                            "end\n"
                            "local function f(x, n)\n"
                            "  local i = 0\n"
                            "  while i < n do\n"
                            "    x = layer(x)\n" /* line 8 */
                            "    i = i + 1\n"
                            "  end\n"
                            "  if x:sum() > 100 then\n"
                            "    x = x:exp() - 1\n" /* line 12 */
                            "  else\n"
                            "    x = (x:sigmoid() + 1):log() * 3\n" /* line 14 */
                            "  end\n"
                            "  return x:relu() + 0.5\n" /* line 16 */
                            "end\n"
                            "local g = kiln.script(f)\n"
                            "g(kiln.ones(2, 3), 3)\n"
                            "g:save(...)\n";

typedef struct rig {
  kn_context *c;
  kn_target ref;
  liar liar;
  kn_entry *entries;
  uint32_t n;
  kn_session *s;
  kn_tensor *x;
} rig;

static void capture(const char *path) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_settop(L, 0);
  ck_assert_msg(luaL_loadbufferx(L, model, sizeof model - 1, "@model.lua", "t") == LUA_OK, "%s",
                lua_tostring(L, -1));
  lua_pushstring(L, path);
  ck_assert_msg(lua_pcall(L, 1, 0, 0) == LUA_OK, "%s", lua_tostring(L, -1));
  lua_close(L);
}

static void open_rig(rig *r, kn_op about, float factor, int after) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/kiln-check-%ld.kiln", (long)getpid());
  capture(path);
  *r = (rig){.c = suite_context(), .liar = {.about = about, .factor = factor, .after = after}};
  r->liar.target = (kn_target){.name = "liar",
                               .supports = liar_supports,
                               .compile = liar_compile,
                               .run = liar_run,
                               .free = liar_free,
                               .self = &r->liar};
  ck_assert(kn_ref_backend.target(r->c, NULL, &r->ref));
  OK(r->c, kn_file_load(r->c, path, NULL, &r->entries, &r->n));
  unlink(path);
  OK(r->c,
     kn_session_new(r->c, r->entries[0].graph, (const kn_target *[]){&r->liar.target, &r->ref}, 2, &r->s));
  r->x = make(r->c, KN_F32, DIMS(2, 3), LIST(1, 2, 3, 4, 5, 6));
}

static void close_rig(rig *r) {
  kn_tensor_release(r->x);
  kn_session_free(r->s);
  kn_file_free_entries(r->c->heap, r->entries, r->n);
  suite_done(r->c);
}

static kn_status run(rig *r, int64_t trips) {
  const kn_rvalue in[] = {{.tensor = r->x}, {.scalar = {KN_SCALAR_INT, {.i = trips}}}};
  kn_rvalue out;
  kn_status st = kn_session_run(r->s, in, 2, &out, 1);
  if (st == KN_OK) kn_tensor_release(out.tensor);
  return st;
}

/* What is said of a fault in `op`, `part` of the sentence; nothing without the check. */
static void finds(kn_op op, float factor, int after, const char *first, const char *second) {
  rig r;
  open_rig(&r, op, factor, after);
  kn_context *c = kn_session_context(r.s);
  OK(c, run(&r, 3));
  kn_session_set_check(r.s, true);
  r.liar.seen = 0;
  FAILS(c, KN_INTERNAL, first, run(&r, 3));
  FAILS(c, KN_INTERNAL, second, (r.liar.seen = 0, run(&r, 3)));
  r.liar.factor = 1; /* an honest one */
  OK(c, run(&r, 3));
  OK(c, run(&r, 1));
  kn_session_set_check(r.s, false);
  OK(c, run(&r, 3));
  close_rig(&r);
}

START_TEST(inside_what_runs_as_one) {
  finds(KN_OP_tanh, 1.001f, 0, "model.lua:3: mul by liar (with ",
        "differs from the reference: element [1,1]");
}
END_TEST

START_TEST(in_a_later_trip) { finds(KN_OP_tanh, 1.01f, 2, "model.lua:3: mul by liar", "tanh"); }
END_TEST

START_TEST(in_a_branch) {
  finds(KN_OP_sigmoid, 1.01f, 0, "model.lua:14: mul by liar (with sigmoid, add and log)", "instead of");
}
END_TEST

START_TEST(behind_all) { finds(KN_OP_relu, 0.9f, 0, "model.lua:16: ", "by liar (with"); }
END_TEST

START_TEST(where_nobody_gets) { /* the other branch is not taken */
  rig r;
  open_rig(&r, KN_OP_exp, 2, 0);
  kn_session_set_check(r.s, true);
  OK(kn_session_context(r.s), run(&r, 2));
  ck_assert_int_eq(r.liar.seen, 0);
  close_rig(&r);
}
END_TEST

/* ---- on a device ---- */

#ifdef KN_HAS_CUDA
/* Not a scan of sums. */
static kn_status lying_cumsum(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                              kn_tensor *const *out) {
  return cu_provider.kernel[KN_OP_cumprod](ctx, attrs, in, n, out);
}
static const kn_provider lying = {.name = "liar", .kernel = {[KN_OP_cumsum] = lying_cumsum}};

static int open_all(lua_State *L) {
  kiln_lua_setcontext(L, (struct kiln_context *)lua_touserdata(L, 1));
  luaL_openlibs(L);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  return 0;
}

/* What it raises, or "". */
static void says(kn_context *c, const char *want) {
  static const char text[] =
      "local w = kiln.full({ 3, 3 }, 0.25, { device = 'cuda' })\n"
      "local function f(x, n)\n"
      "  for i = 1, n do\n"
      "    if x:sum() < 100 then\n"
      "      x = x:matmul(w):tanh()\n"
      "      x = x:t():cumsum(2):t() + i\n" /* line 6 */
      "    end\n"
      "  end\n"
      "  return x[{ {}, { 2, 3 } }] * 2, x:gt(1):nonzero()\n"
      "end\n"
      "local ok, why = pcall(kiln.script(f), kiln.ones(2, 3, { device = 'cuda' }), 3)\n"
      "return ok and '' or tostring(why)\n";
  lua_State *L = luaL_newstate();
  lua_pushcfunction(L, open_all);
  lua_pushlightuserdata(L, c);
  ck_assert_int_eq(lua_pcall(L, 1, 0, 0), LUA_OK);
  ck_assert(luaL_loadbufferx(L, text, sizeof text - 1, "@device.lua", "t") == LUA_OK);
  ck_assert_msg(lua_pcall(L, 0, 1, 0) == LUA_OK, "%s", lua_tostring(L, -1));
  const char *said = lua_tostring(L, -1);
  ck_assert_msg(*want ? strstr(said, want) != NULL : !*said, "\"%s\" instead of \"%s\"", said, want);
  lua_close(L);
}

START_TEST(on_a_device) {
  kn_context *c = software_context();
  setenv("KILN_CHECK", "1", 1);
  says(c, "");
  OK(c, kn_device_add(c, KN_CUDA, &lying));
  says(c, "device.lua:6: cumsum by cuda differs from the reference: element [1,");
  unsetenv("KILN_CHECK");
  says(c, "");
  kn_device_remove(c, KN_CUDA, &lying);
  kn_registry_close(c);
  suite_done(c);
}
END_TEST
#else
START_TEST(on_a_device) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST
#endif

SUITE("check", on_a_device, inside_what_runs_as_one, in_a_later_trip, in_a_branch, behind_all,
      where_nobody_gets)
