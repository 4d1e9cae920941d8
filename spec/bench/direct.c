/* The peers of the bench that need no framework: memory copied by memcpy, and oneDNN called directly. Takes
 * the orders of worker.lua: `row copy N`, `row matmul BATCH M K N TURNED`, `row conv N C SIZE FILTERS K
 * STRIDE PADDING`, then `run N`. Everything is made beforehand, results included; a run is what oneDNN itself
 * takes for tensors that lie as eager tensors do. Of two ways the faster one counts: the plain layouts as
 * they are, or oneDNN's own choice with reorders of all operands and of the result at every run. Not a user
 * of kiln's code but for the table of oneDNN's functions. */
#define _POSIX_C_SOURCE 200809L
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef BENCH_ONEDNN
#include "backends/onednn/library.h"
#endif
#ifdef KN_THREADS_OPENMP
#include <omp.h>
#endif

static double now(void) {
  struct timespec t;
  const char *which = getenv("KILN_BENCH_CLOCK");
  clock_gettime(which && !strcmp(which, "cpu") ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *block(size_t bytes) {
  void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!p) {
    fprintf(stderr, "bench-direct: no memory\n");
    exit(1);
  }
  float *x = p;
  for (size_t i = 0; i < bytes / sizeof *x; i++) x[i] = (float)(i % 17) / 8 - 1;
  return p;
}

/* ---- copying ---- */

typedef struct copying {
  char *from, *to;
  size_t bytes;
} copying;

static void copy(const copying *c) {
#ifdef KN_THREADS_OPENMP
  int parts = c->bytes < 1 << 18 ? 1 : omp_get_max_threads();
  if (parts > 1) {
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int i = 0; i < parts; i++) {
      size_t begin = c->bytes * (size_t)i / (size_t)parts, end = c->bytes * ((size_t)i + 1) / (size_t)parts;
      memcpy(c->to + begin, c->from + begin, end - begin);
    }
    return;
  }
#endif
  memcpy(c->to, c->from, c->bytes);
}

/* ---- oneDNN ---- */

#ifdef BENCH_ONEDNN
enum { SRC, WEIGHTS, DST, ARGS };
static const int arg_ids[ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};

typedef struct primitive {
  dnnl_primitive_desc_t pd;
  dnnl_primitive_t run;
} primitive;

/* One way to do it: the primitive and the reorders into its layouts, where they differ from ours. */
typedef struct way {
  primitive main, reorder[ARGS];
  dnnl_memory_t plain[ARGS], own[ARGS]; /* own: the same as plain where there is no reorder */
  void *packed[ARGS];
} way;

typedef struct problem {
  int rank;
  dnnl_dims_t dims[ARGS], strides[ARGS], stride, padding, dilation;
  void *data[ARGS];
  bool conv;
} problem;

static dn_library lib;
static dnnl_engine_t engine;
static dnnl_stream_t stream;

static bool ok(dnnl_status_t s) { return s == dnnl_success; }

static bool make_reorder(way *w, int i, dn_md_ref plain) {
  dn_md_ref own = lib.primitive_desc_query_md(w->main.pd, dnnl_query_exec_arg_md, arg_ids[i]);
  w->own[i] = w->plain[i];
  if (lib.memory_desc_equal(own, plain)) return true;
  w->packed[i] = block(lib.memory_desc_get_size(own));
  dn_md_ref from = i == DST ? own : plain, to = i == DST ? plain : own;
  primitive *p = &w->reorder[i];
  return ok(lib.memory_create(&w->own[i], own, engine, w->packed[i])) &&
         ok(lib.reorder_primitive_desc_create(&p->pd, from, engine, to, engine, NULL)) &&
         ok(lib.primitive_create(&p->run, p->pd));
}

static void free_way(way *w) {
  for (int i = 0; i < ARGS; i++) {
    if (w->reorder[i].run) lib.primitive_destroy(w->reorder[i].run);
    if (w->reorder[i].pd) lib.primitive_desc_destroy(w->reorder[i].pd);
    if (w->own[i] && w->own[i] != w->plain[i]) lib.memory_destroy(w->own[i]);
    if (w->plain[i]) lib.memory_destroy(w->plain[i]);
    free(w->packed[i]);
  }
  if (w->main.run) lib.primitive_destroy(w->main.run);
  if (w->main.pd) lib.primitive_desc_destroy(w->main.pd);
  memset(w, 0, sizeof *w);
}

static bool make_way(way *w, const problem *p, bool any) {
  dn_md plain[ARGS] = {0}, asked[ARGS] = {0};
  memset(w, 0, sizeof *w);
  bool good = true;
  for (int i = 0; i < ARGS && good; i++) {
    good = ok(dn_md_strides(&lib, &plain[i], p->rank, p->dims[i], p->strides[i])) &&
           ok(any ? dn_md_any(&lib, &asked[i], p->rank, p->dims[i])
                  : dn_md_strides(&lib, &asked[i], p->rank, p->dims[i], p->strides[i])) &&
           ok(lib.memory_create(&w->plain[i], dn_ref(&plain[i]), engine, p->data[i]));
  }
  dn_md_ref x = dn_ref(&asked[SRC]), f = dn_ref(&asked[WEIGHTS]), y = dn_ref(&asked[DST]);
  if (good && p->conv)
    good = ok(dn_convolution_forward_create(&lib, &w->main.pd, engine, dnnl_forward_inference,
                                            dnnl_convolution_direct, x, f, NULL, y, p->stride, p->dilation,
                                            p->padding, p->padding, NULL));
  else if (good)
    good = ok(dn_matmul_create(&lib, &w->main.pd, engine, x, f, NULL, y, NULL));
  good = good && ok(lib.primitive_create(&w->main.run, w->main.pd));
  for (int i = 0; i < ARGS && good; i++) good = make_reorder(w, i, dn_ref(&plain[i]));
  for (int i = 0; i < ARGS; i++) dn_md_free(&lib, &plain[i]), dn_md_free(&lib, &asked[i]);
  if (!good) free_way(w);
  return good;
}

static void run_reorder(const way *w, int i) {
  if (!w->reorder[i].run) return;
  dnnl_memory_t from = i == DST ? w->own[i] : w->plain[i], to = i == DST ? w->plain[i] : w->own[i];
  lib.primitive_execute(w->reorder[i].run, stream, 2,
                        (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

static void run_way(const way *w) {
  dnnl_exec_arg_t args[ARGS];
  run_reorder(w, SRC);
  run_reorder(w, WEIGHTS);
  for (int i = 0; i < ARGS; i++) args[i] = (dnnl_exec_arg_t){arg_ids[i], w->own[i]};
  lib.primitive_execute(w->main.run, stream, ARGS, args);
  run_reorder(w, DST);
}

static void row_major(problem *p, int i, const dnnl_dim_t *dims) {
  dnnl_dim_t step = 1;
  for (int d = p->rank - 1; d >= 0; d--) p->dims[i][d] = dims[d], p->strides[i][d] = step, step *= dims[d];
  p->data[i] = block((size_t)step * sizeof(float));
}

static bool read_matmul(problem *p, const char *text) {
  long b, m, k, n, turned;
  if (sscanf(text, "%ld %ld %ld %ld %ld", &b, &m, &k, &n, &turned) != 5) return false;
  p->rank = 3;
  row_major(p, SRC, (dnnl_dim_t[]){b, m, k});
  row_major(p, WEIGHTS, (dnnl_dim_t[]){b, k, n});
  if (turned) p->strides[WEIGHTS][1] = 1, p->strides[WEIGHTS][2] = k;
  row_major(p, DST, (dnnl_dim_t[]){b, m, n});
  return true;
}

static bool read_conv(problem *p, const char *text) {
  long n, c, size, f, k, stride, padding;
  if (sscanf(text, "%ld %ld %ld %ld %ld %ld %ld", &n, &c, &size, &f, &k, &stride, &padding) != 7)
    return false;
  long out = (size + 2 * padding - k) / stride + 1;
  p->rank = 4;
  p->conv = true;
  for (int i = 0; i < 2; i++) p->stride[i] = stride, p->padding[i] = padding;
  row_major(p, SRC, (dnnl_dim_t[]){n, c, size, size});
  row_major(p, WEIGHTS, (dnnl_dim_t[]){f, c, k, k});
  row_major(p, DST, (dnnl_dim_t[]){n, f, out, out});
  return true;
}

static double time_way(const way *w) {
  double best = 1e9;
  for (int i = 0; i < 7; i++) {
    double from = now();
    run_way(w);
    if (now() - from < best) best = now() - from;
  }
  return best;
}

/* The faster of the two ways. */
static bool make_best(way *w, const problem *p) {
  way other;
  bool plain = make_way(w, p, false), any = make_way(&other, p, true);
  if (plain && any && time_way(w) <= time_way(&other))
    free_way(&other);
  else if (any) {
    if (plain) free_way(w);
    *w = other;
  }
  return plain || any;
}

static const char *open_onednn(void) {
  static char why[160], version[DN_VERSION_TEXT];
  if (stream) return NULL;
  if (!dn_library_open(&lib, version, why, sizeof why)) return why;
  if (!ok(lib.engine_create(&engine, dnnl_cpu, 0)) ||
      !ok(lib.stream_create(&stream, engine, dnnl_stream_default_flags)))
    return "oneDNN could not make an engine";
  return NULL;
}
#endif

/* ---- orders ---- */

typedef struct row {
  copying copying;
#ifdef BENCH_ONEDNN
  problem problem;
  way way;
#endif
} row;

static void clear(row *r) {
  free(r->copying.from);
  free(r->copying.to);
#ifdef BENCH_ONEDNN
  free_way(&r->way);
  for (int i = 0; i < ARGS; i++) free(r->problem.data[i]);
#endif
  memset(r, 0, sizeof *r);
}

/* NULL, or why not. */
static const char *make(row *r, const char *text) {
  clear(r);
  if (!strncmp(text, "copy ", 5)) {
    r->copying.bytes = (size_t)strtoll(text + 5, NULL, 10) * sizeof(float);
    r->copying.from = block(r->copying.bytes);
    r->copying.to = block(r->copying.bytes);
    return NULL;
  }
#ifdef BENCH_ONEDNN
  const char *why = open_onednn();
  if (why) return why;
  bool read = !strncmp(text, "matmul ", 7) ? read_matmul(&r->problem, text + 7)
              : !strncmp(text, "conv ", 5) ? read_conv(&r->problem, text + 5)
                                           : false;
  if (!read) return "not understood";
  return make_best(&r->way, &r->problem) ? NULL : "oneDNN has no implementation for it";
#else
  return "built without oneDNN";
#endif
}

static void run(const row *r) {
  if (r->copying.bytes) copy(&r->copying);
#ifdef BENCH_ONEDNN
  if (r->way.main.run) run_way(&r->way);
#endif
}

int main(void) {
  static row r;
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "row ", 4)) {
      const char *why = make(&r, line + 4);
      printf("%s%s\n", why ? "no " : "ok", why ? why : "");
    } else {
      long n = strtol(line + 4, NULL, 10);
      double from = now();
      for (long i = 0; i < n; i++) run(&r);
      printf("%.9f\n", now() - from);
    }
    fflush(stdout);
  }
  clear(&r);
  return 0;
}
