/* Profiles: what was noted, put together: medians, lines of the program, tables for people. */
#include "graph/profile.h"
#include "graph/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 30 }; /* rows of a table */

/* ---- medians ---- */

static int by_number(const void *a, const void *b) {
  double x, y;
  memcpy(&x, a, sizeof x), memcpy(&y, b, sizeof y);
  return (x > y) - (x < y);
}

/* Sorts them. The mean of those of which most are nothing. */
static double median(double *v, uint32_t n) {
  double sum = 0;
  if (!n) return 0;
  for (uint32_t i = 0; i < n; i++) sum += v[i];
  qsort(v, n, sizeof *v, by_number);
  double m = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
  return m > 0 ? m : sum / n;
}

/* ---- lines ---- */

static bool same_line(const kn_where *a, const kn_where *b) {
  return a == b || (a && b && a->line == b->line && !strcmp(a->chunk, b->chunk));
}

/* The line's, made when it is new; its samples lie at `samples` + its index * runs. */
static kn_profile_line *line_of(kn_profile *p, const kn_where *w) {
  for (uint32_t i = 0; i < p->nlines; i++)
    if (same_line(p->lines[i].where, w)) return &p->lines[i];
  p->lines[p->nlines] = (kn_profile_line){.where = w};
  return &p->lines[p->nlines++];
}

/* The share of each node in what several took together: by what each would at least take alone. */
static double weight(const kn_profile *p, const kn_profile_row *r, uint32_t i) {
  double flops = r->alone[i].flops / p->peaks.flops, bytes = r->alone[i].bytes / p->peaks.bytes;
  return flops > bytes ? flops : bytes;
}

static void add_row(kn_profile *p, const kn_profile_row *r, const double *samples, double *of_lines) {
  double sum = 0;
  for (uint32_t i = 0; i < r->n && r->n > 1; i++) sum += weight(p, r, i);
  for (uint32_t i = 0; i < r->n; i++) {
    double part = sum > 0 ? weight(p, r, i) / sum : 1.0 / r->n;
    kn_profile_line *l = line_of(p, kn_where_user(r->nodes[i]->where));
    double *to = of_lines + (size_t)(l - p->lines) * p->options.runs;
    l->nodes++;
    if (l->calls < r->calls) l->calls = r->calls;
    l->own += part * r->own;
    l->cost.flops += r->n > 1 ? r->alone[i].flops * (double)r->calls : r->cost.flops;
    l->cost.bytes += part * r->cost.bytes;
    for (uint32_t k = 0; k < p->done; k++) to[k] += part * samples[k];
  }
}

static int by_time(const void *a, const void *b) {
  double x = ((const kn_profile_line *)a)->median, y = ((const kn_profile_line *)b)->median;
  return (x < y) - (x > y);
}

kn_status kn_profile_close(kn_context *ctx, kn_profile *p) {
  uint32_t nodes = 1;
  double sum = 0;
  for (uint32_t i = 0; i < p->nrows; i++) nodes += p->rows[i].n;
  size_t room = (size_t)nodes * p->options.runs * sizeof(double);
  double *of_lines = kn_calloc(ctx->heap, (size_t)nodes * p->options.runs, sizeof *of_lines);
  p->lines = kn_arena_alloc(&p->arena, nodes * sizeof *p->lines);
  if (!of_lines || !p->lines) {
    kn_free(ctx->heap, of_lines, room);
    return kn_fail_nomem(ctx, room);
  }
  for (uint32_t i = 0; i < p->nrows; i++) {
    kn_profile_row *r = &p->rows[i];
    double *samples = p->samples + (size_t)i * p->options.runs;
    if (kn_opcode_is_op(r->nodes[0]->op)) r->total = r->own;
    add_row(p, r, samples, of_lines);
    r->median = median(samples, p->done);
    sum += r->median;
  }
  for (uint32_t i = 0; i < p->nlines; i++)
    p->lines[i].median = median(of_lines + (size_t)i * p->options.runs, p->done);
  kn_free(ctx->heap, of_lines, room);
  qsort(p->lines, p->nlines, sizeof *p->lines, by_time);
  p->plain_median = median(p->plain, p->done);
  p->timed_median = median(p->timed, p->done);
  p->whole = p->timed_median > sum ? p->timed_median : sum;
  return KN_OK;
}

/* ---- tables ---- */

kn_rates kn_profile_rates(const kn_profile *p, double took, const kn_cost *cost) {
  kn_rates r = {.share = p->whole > 0 ? took / p->whole : 0};
  if (!(took > 0)) return r;
  r.flops = cost->flops / p->done / took;
  r.bytes = cost->bytes / p->done / took;
  r.flops_of_peak = r.flops / p->peaks.flops;
  r.bytes_of_peak = r.bytes / p->peaks.bytes;
  return r;
}

char *kn_profile_name(const kn_profile_row *r, char *buf, size_t size) {
  enum { NAMED = 6 };
  size_t at = 0;
  buf[0] = 0;
  for (uint32_t i = 0; i < r->n && i < NAMED && at < size; i++) {
    int n = snprintf(buf + at, size - at, "%s%s", i ? " + " : "", kn_opcode_describe(r->nodes[i]->op).text);
    at += n > 0 ? (size_t)n : 0;
  }
  if (r->n > NAMED && at < size) snprintf(buf + at, size - at, " + %" PRIu32 " more", r->n - NAMED);
  return buf;
}

/* The common columns. */
static void put_numbers(const kn_profile *p, kn_writer *w, double took, uint64_t calls, const kn_cost *cost) {
  kn_rates r = kn_profile_rates(p, took, cost);
  kn_putf(w, "%6.1f%% %10.4f %8.6g", 100 * r.share, 1e3 * took, (double)calls / p->done);
  if (r.flops > 0)
    kn_putf(w, " %8.2f %4.0f%%", r.flops * 1e-9, 100 * r.flops_of_peak);
  else
    kn_putf(w, " %8s %5s", "", "");
  if (r.bytes > 0)
    kn_putf(w, " %8.2f %4.0f%%  ", r.bytes * 1e-9, 100 * r.bytes_of_peak);
  else
    kn_putf(w, " %8s %5s  ", "", "");
}

static void put_header(kn_writer *w, const char *last) {
  kn_putf(w, "\n%7s %10s %8s %8s %5s %8s %5s  %s\n", "share", "ms a run", "calls", "GFLOP/s", "peak", "GB/s",
          "peak", last);
}

static void put_rest(const kn_profile *p, kn_writer *w, uint32_t n, const char *what, double took) {
  kn_rates r = kn_profile_rates(p, took, &(kn_cost){0, 0});
  if (n) kn_putf(w, "%6.1f%% in %" PRIu32 " more %s\n", 100 * r.share, n, what);
}

static void put_lines(const kn_profile *p, kn_writer *w) {
  double rest = 0;
  put_header(w, "line");
  for (uint32_t i = 0; i < p->nlines; i++) {
    const kn_profile_line *l = &p->lines[i];
    rest += i < SHOWN ? 0 : l->median;
    if (i >= SHOWN) continue;
    put_numbers(p, w, l->median, l->calls, &l->cost);
    if (!l->where)
      kn_puts(w, "(no place)\n");
    else if (l->where->line > 0)
      kn_putf(w, "%s:%d\n", l->where->chunk, l->where->line);
    else
      kn_putf(w, "%s:?\n", l->where->chunk);
  }
  put_rest(p, w, p->nlines > SHOWN ? p->nlines - SHOWN : 0, "lines", rest);
}

static void put_row(const kn_profile *p, kn_writer *w, const kn_profile_row *r) {
  char name[256], where[512];
  const kn_node *last = r->nodes[r->n - 1];
  put_numbers(p, w, r->median, r->calls, &r->cost);
  kn_profile_name(r, name, sizeof name);
  kn_puts(w, name);
  if (last->nout && last->out[0]->name) kn_putf(w, " %%%s", last->out[0]->name);
  if (r->trips) kn_putf(w, ", %.6g trips", (double)r->trips / p->done);
  if (r->backend) kn_putf(w, "  [%s", r->backend);
  if (r->backend) kn_puts(w, r->impl && strcmp(r->impl, r->backend) ? " " : "");
  if (r->backend) kn_putf(w, "%s]", r->impl && strcmp(r->impl, r->backend) ? r->impl : "");
  kn_where_brief(r->nodes[0]->where, where, sizeof where);
  if (where[0]) kn_putf(w, "  %s", where);
  kn_puts(w, "\n");
}

static int by_median(const void *a, const void *b) {
  double x = (*(const kn_profile_row *const *)a)->median, y = (*(const kn_profile_row *const *)b)->median;
  return (x < y) - (x > y);
}

static void put_rows(const kn_profile *p, kn_writer *w) {
  const kn_profile_row **order = kn_alloc(p->heap, (p->nrows + 1u) * sizeof *order);
  double rest = 0, sum = 0;
  w->failed |= !order;
  if (!order) return;
  for (uint32_t i = 0; i < p->nrows; i++) order[i] = &p->rows[i];
  qsort(order, p->nrows, sizeof *order, by_median);
  put_header(w, "nodes");
  for (uint32_t i = 0; i < p->nrows; i++) {
    sum += order[i]->median;
    if (i < SHOWN)
      put_row(p, w, order[i]);
    else
      rest += order[i]->median;
  }
  put_rest(p, w, p->nrows > SHOWN ? p->nrows - SHOWN : 0, "nodes", rest);
  kn_putf(w, "%6.1f%% around them\n", p->whole > 0 ? 100 * (p->whole - sum) / p->whole : 0);
  kn_free(p->heap, order, (p->nrows + 1u) * sizeof *order);
}

void kn_profile_text(const kn_profile *p, kn_writer *w) {
  kn_putf(w,
          "profile of %s: %" PRIu32 " run%s, median %.4f ms, with each step timed %.4f ms\n"
          "peaks: %.1f GFLOP/s, %.1f GB/s, %d thread%s; time of what lies inside is not counted twice\n",
          p->graph->name, p->done, p->done == 1 ? "" : "s", 1e3 * p->plain_median, 1e3 * p->timed_median,
          p->peaks.flops * 1e-9, p->peaks.bytes * 1e-9, p->peaks.threads, p->peaks.threads == 1 ? "" : "s");
  put_lines(p, w);
  put_rows(p, w);
}
