/* Profiles as traces: the JSON of chrome://tracing and Perfetto, one complete event ("ph": "X") for each run,
 * part, node and trip, those around others first. */
#include "graph/json.h"
#include "graph/mapping.h"
#include "graph/profile.h"
#include "graph/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void put_text(kn_writer *w, const char *key, const char *text) {
  kn_putf(w, ",\"%s\":", key);
  kn_put_json(w, text, strlen(text));
}

/* Microseconds, of whole nanoseconds, so that what lies within something else does so when it is rounded. */
static void put_time(kn_writer *w, const char *key, int64_t ns) {
  kn_putf(w, ",\"%s\":%" PRId64 ".%03d", key, ns / 1000, (int)(ns % 1000));
}

static int64_t whole(double seconds) { return (int64_t)(seconds * 1e9 + 0.5); }

static void put_cost(kn_writer *w, const char *key, double v) {
  char buf[KN_NUMBER_TEXT];
  kn_putf(w, ",\"%s\":%s", key, kn_double_text(v, buf));
}

static void put_row(kn_writer *w, const kn_profile_row *r) {
  char name[256], line[512];
  put_text(w, "name", kn_profile_name(r, name, sizeof name));
  kn_puts(w, ",\"cat\":\"node\",\"args\":{\"calls\":");
  kn_putf(w, "%" PRIu64, r->calls);
  const kn_where *where = kn_where_user(r->nodes[0]->where);
  const char *value = r->nodes[0]->nout ? r->nodes[0]->out[0]->name : NULL;
  if (value) put_text(w, "value", value);
  if (where && snprintf(line, sizeof line, "%s:%d", where->chunk, where->line) < (int)sizeof line)
    put_text(w, "line", line);
  if (r->backend) put_text(w, "backend", r->backend);
  if (r->impl) put_text(w, "implementation", r->impl);
  if (r->fixed && kn_opcode_is_op(r->nodes[0]->op)) {
    put_cost(w, "flops", r->each.flops);
    put_cost(w, "bytes", r->each.bytes);
  }
  kn_puts(w, "}");
}

static void put_event(kn_writer *w, const kn_profile *p, const kn_profile_event *e) {
  int64_t start = whole(e->start);
  kn_puts(w, "{\"ph\":\"X\",\"pid\":1,\"tid\":1");
  put_time(w, "ts", start);
  put_time(w, "dur", whole(e->start + e->length) - start);
  switch ((kn_profile_event_kind)e->kind) {
  case KN_PROFILE_RUN:
    put_text(w, "name", p->graph->name);
    kn_putf(w, ",\"cat\":\"run\",\"args\":{\"run\":%" PRIu32 "}", e->index + 1);
    break;
  case KN_PROFILE_PART: {
    const char *by = p->rows[e->index].backend;
    put_text(w, "name", by ? by : "part");
    kn_puts(w, ",\"cat\":\"part\"");
    break;
  }
  case KN_PROFILE_TRIP: kn_puts(w, ",\"name\":\"trip\",\"cat\":\"trip\""); break;
  case KN_PROFILE_ROW: put_row(w, &p->rows[e->index]);
  }
  kn_puts(w, "}");
}

kn_status kn_profile_trace(kn_context *ctx, const kn_profile *p, const char *path) {
  kn_writer w = {.heap = ctx->heap};
  kn_puts(&w, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
  for (uint32_t i = 0; i < p->nevents; i++) {
    put_event(&w, p, &p->events[i]);
    kn_puts(&w, i + 1 < p->nevents ? ",\n" : "\n");
  }
  kn_puts(&w, "],\"otherData\":{\"graph\":");
  kn_put_json(&w, p->graph->name, strlen(p->graph->name));
  kn_putf(&w, ",\"runs\":%" PRIu32 ",\"events_left_out\":%" PRIu32 "}}\n", p->done, p->lost);
  kn_status st = w.failed ? kn_fail_nomem(ctx, w.n) : KN_OK;
  if (st == KN_OK) st = kn_write_file(ctx, path, &(kn_piece){w.p, w.n}, 1);
  kn_writer_free(&w);
  return st;
}
