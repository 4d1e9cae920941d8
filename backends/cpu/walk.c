/* The walk of a chain: the steps of a tile, tiles of a unit of work, units in threads. How it is walked was
 * decided by walk_bind.c. Compiled once. */
#include "backends/cpu/walk.h"
#include <string.h>

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- a tile ---- */

typedef struct state {
  const cp_chain *c;
  cp_room room;
  char *base;
  bool filled[CP_MOST_MEMORY];
  const char *of[CP_MOST_MEMORY]; /* the row, or where the element is, that the copy was made of */
  int64_t n[CP_MOST_MEMORY];
  int64_t at[CP_MOST_FOLDS]; /* elements that wait in the stages of totals */
} state;

typedef struct span { /* rows [row, row + high), elements [first, first + wide) of each */
  int64_t row, high, first, wide;
} span;

typedef struct tile {
  span at;
  char *spots[CP_SPOTS]; /* where operands of steps are */
} tile;

#define COPY(T)                                                                                              \
  for (int64_t i = 0; i < n; i++) ((T *)to)[i] = *(const T *)(from + i * step)
static void copy_apart(char *to, const char *from, int64_t step, int64_t n, int64_t size) {
  switch (size) {
  case 1: COPY(uint8_t); break;
  case 2: COPY(uint16_t); break;
  case 4: COPY(uint32_t); break;
  default: COPY(uint64_t);
  }
}

#define REPEAT(T)                                                                                            \
  do {                                                                                                       \
    const T x = *(const T *)from;                                                                            \
    for (int64_t i = 0; i < n; i++) ((T *)to)[i] = x;                                                        \
  } while (0)
static void repeat(char *to, const char *from, int64_t n, int64_t size) {
  switch (size) {
  case 1: memset(to, *(const unsigned char *)from, (size_t)n); break;
  case 2: REPEAT(uint16_t); break;
  case 4: REPEAT(uint32_t); break;
  default: REPEAT(uint64_t);
  }
}

/* Where row r of an operand begins. */
static char *row_at(const cp_chain *c, const cp_operand *o, int64_t r) {
  char *p = o->data;
  if (c->nlead == 1) return p + r * o->lead[0];
  for (int d = c->nlead - 1; d >= 0; d--) {
    p += r % c->lead[d] * o->lead[d];
    r /= c->lead[d];
  }
  return p;
}

/* n elements of a row that begins at p, from its element `first` on. */
static void copy_line(const cp_chain *c, const cp_operand *o, char *to, const char *p, int64_t first,
                      int64_t n) {
  const int last = c->ninner - 1;
  const int64_t step = last < 0 ? 0 : o->inner[last];
  int64_t at[KN_MAX_RANK] = {0};
  for (int d = last; d >= 0; d--) {
    at[d] = first % c->within[d];
    first /= c->within[d];
    p += at[d] * o->inner[d];
  }
  for (int64_t done = 0, m; done < n; done += m) {
    m = last < 1 ? n : least(c->within[last] - at[last], n - done);
    if (step == o->size)
      memcpy(to + done * o->size, p, (size_t)(m * o->size));
    else if (step)
      copy_apart(to + done * o->size, p, step, m, o->size);
    else
      repeat(to + done * o->size, p, m, o->size);
    p -= last < 0 ? 0 : at[last] * step;
    if (last > 0) at[last] = 0;
    for (int d = last - 1; d >= 0; d--) {
      p += o->inner[d];
      if (++at[d] < c->within[d]) break;
      p -= o->inner[d] * c->within[d];
      at[d] = 0;
    }
  }
}

static void copy_tile(state *s, uint32_t k, const span *t, char *to) {
  const cp_chain *c = s->c;
  const cp_operand *o = &c->operands[k];
  if (c->memory[k].numbers) {
    for (int64_t i = 0; i < t->high; i++) memcpy(to + i * o->size, row_at(c, o, t->row + i), (size_t)o->size);
    return;
  }
  const int64_t line = t->wide * o->size;
  if (o->way == CP_WAY_ONCE) { /* its rows are all the same one, of which ever more are there to be copied */
    if (c->ninner == 1 && o->inner[0] == o->size)
      memcpy(to, o->data + t->first * o->size, (size_t)line);
    else
      copy_line(c, o, to, o->data, t->first, t->wide);
    for (int64_t done = line, all = t->high * line; done < all; done *= 2)
      memcpy(to + done, to, (size_t)least(done, all - done));
    return;
  }
  for (int64_t i = 0; i < t->high; i++)
    copy_line(c, o, to + i * line, row_at(c, o, t->row + i), t->first, t->wide);
}

/* A number that is repeated along a row of many tiles is brought once. Rows of a higher tile take its place.
 */
static bool has_it(state *s, uint32_t k, const span *t) {
  const cp_operand *o = &s->c->operands[k];
  if (t->high != 1 || s->c->ninner != 1 || o->inner[0]) {
    s->of[k] = NULL;
    return false;
  }
  const char *of = row_at(s->c, o, t->row);
  if (s->of[k] == of && s->n[k] >= t->wide) return true;
  s->of[k] = of;
  s->n[k] = t->wide;
  return false;
}

static char *bring(state *s, uint32_t k, const span *t) {
  const cp_chain *c = s->c;
  const cp_operand *o = &c->operands[k];
  if (o->way == CP_WAY_AS_IS)
    return o->data + (c->memory[k].numbers ? t->row : t->row * c->row + t->first) * o->size;
  if (o->way == CP_WAY_LINE) return row_at(c, o, t->row) + t->first * o->size;
  char *to = s->base + s->room.copies + o->room * s->room.block;
  if (o->way == CP_WAY_ONCE && s->filled[k]) return to;
  span whole = *t; /* the first may be a short one */
  if (o->way == CP_WAY_ONCE) whole = (span){.high = c->high, .wide = c->wide};
  if (o->way == CP_WAY_ONCE || !has_it(s, k, t)) copy_tile(s, k, &whole, to);
  s->filled[k] = true;
  return to;
}

static void run_loop(const tile *t, const cp_step *e, int64_t n) {
  char *p[CP_OPERANDS];
  p[0] = t->spots[e->to];
  for (int i = 0; i < e->n; i++) p[i + 1] = t->spots[e->from[i]];
  e->run(p, n, e->arg);
}

static void spread(const tile *t, const cp_step *e) {
  char *to = t->spots[e->to];
  const char *from = t->spots[e->from[0]];
  for (int64_t i = 0; i < t->at.high; i++)
    repeat(to + i * t->at.wide * e->size, from + i * e->size, t->at.wide, e->size);
}

static void fold(const state *s, const tile *t, const cp_step *e) {
  const cp_folding *f = &s->c->folds[e->fold];
  char *to = t->spots[e->to], *acc = s->base + s->room.accs;
  if (f->apart) {
    const size_t size = kn_dtype_size(kn_tensor_dtype(f->made));
    memcpy(to, (char *)kn_tensor_data(f->made) + (size_t)t->at.row * size, (size_t)t->at.high * size);
    return;
  }
  cp_fold_start(&f->of, acc, t->at.high);
  f->of.each(acc, t->spots[e->from[0]], t->at.high, t->at.wide);
  cp_fold_finish(&f->of, acc, t->at.high, to);
}

/* Rows go through a stage, so that as many as the eager kernel folds at a time are folded; those that lie in
 * memory wait there. Pieces end with tiles, see high_at. */
static void fold_columns(state *s, const tile *t, const cp_step *e) {
  const cp_chain *c = s->c;
  const cp_folding *f = &c->folds[e->fold];
  const bool part = t->at.wide < c->row, lies = e->from[0] < CP_IN_BLOCK;
  const int64_t line = t->at.wide * e->size, piece = f->cut.rows, at_once = 8 * f->cut.lined;
  const int64_t apart = lies ? c->row * e->size : line;
  char *acc = f->partial + (t->at.row / piece * f->width + t->at.first) * CP_NUMBER;
  char *stage = s->base + s->room.stages + e->fold * s->room.stage;
  const char *x = t->spots[e->from[0]];
  int64_t left = t->at.high, row = t->at.row, *wait = &s->at[e->fold];
  if (row % piece == 0 && !f->apart) cp_fold_start(&f->of, acc, part ? t->at.wide : f->width);
  while (left && !f->apart) {
    const int64_t m = least(at_once - *wait, left);
    if (!lies) memcpy(stage + *wait * line, x, (size_t)(m * line));
    *wait += m, row += m, left -= m, x += m * apart;
    if (*wait < at_once && row % piece != 0 && row != c->rows) continue;
    cp_fold_columns(&f->of, &f->cut, acc, lies ? x - *wait * apart : stage, apart, *wait, t->at.wide);
    *wait = 0;
  }
  if ((row % piece == 0 || row == c->rows) && !part && !f->apart)
    cp_fold_narrow(&f->of, acc, f->width, t->at.wide);
}

/* Elements go through a stage, so that as many as the eager kernel folds at a time are folded. */
static void fold_total(state *s, const tile *t, const cp_step *e) {
  const cp_chain *c = s->c;
  const cp_folding *f = &c->folds[e->fold];
  const int64_t total = c->rows * c->row, piece = f->pieces == 1 ? total : CP_PIECE;
  const char *x = t->spots[e->from[0]];
  char *stage = s->base + s->room.stages + e->fold * s->room.stage;
  int64_t left = t->at.high * t->at.wide, pos = t->at.row * c->row + t->at.first, *wait = &s->at[e->fold];
  while (left && !f->apart) {
    char *acc = f->partial + pos / piece * CP_NUMBER;
    const int64_t end = least(pos / piece * piece + piece, total);
    const int64_t m = least(least(CP_LONGEST - *wait, end - pos), left);
    if (pos % piece == 0) cp_fold_start(&f->of, acc, 1);
    const bool whole = m == CP_LONGEST || (!*wait && pos + m == end);
    if (!whole) memcpy(stage + *wait * e->size, x, (size_t)(m * e->size));
    *wait += m, pos += m, left -= m;
    if (*wait == CP_LONGEST || pos == end) {
      f->of.each(acc, whole ? x : stage, 1, *wait);
      *wait = 0;
    }
    x += m * e->size;
  }
}

/* All of it, as the tile is. */
static void product(const state *s, const tile *t, const cp_step *e) {
  const cp_chain *c = s->c;
  const char *a = t->spots[e->from[0]], *b = c->turns ? c->turned : t->spots[e->from[1]];
  const cp_gemm *h = &c->head;
  if (h->way == CP_GEMM_STRIPS && h->b_column == 1) { /* of sums so short in one go */
    h->kit->strips(h->m, h->n, h->k, a, h->a_row, h->a_column, b, h->b_row, t->spots[e->to], h->c_row, false);
    return;
  }
  cp_gemm g = *h;
  g.a = a;
  g.b = b;
  g.c = t->spots[e->to];
  if (cp_gemm_at_once(c->ctx, &g)) return;
  _Alignas(CP_LINE) char room[CP_HEAD_ROOM];
  cp_gemm_in(c->ctx, &g, room);
}

static void run_tile(state *s, tile *t) {
  const cp_chain *c = s->c;
  const int64_t n = t->at.high * t->at.wide;
  for (uint32_t k = 0; k < c->nmemory; k++)
    t->spots[k] = c->single && c->operands[k].way == CP_WAY_AS_IS ? c->operands[k].data : bring(s, k, &t->at);
  for (uint32_t i = 0; i < c->nsteps; i++) {
    const cp_step *e = &c->steps[i];
    switch ((cp_step_kind)e->kind) {
    case CP_STEP_EACH: run_loop(t, e, n); break;
    case CP_STEP_PRODUCT: product(s, t, e); break;
    case CP_STEP_ROWS: run_loop(t, e, t->at.high); break;
    case CP_STEP_SPREAD: spread(t, e); break;
    case CP_STEP_SOFTMAX:
      e->softmax(t->spots[e->to], t->spots[e->from[0]], t->at.high, t->at.wide, e->log);
      break;
    case CP_STEP_FOLD: fold(s, t, e); break;
    case CP_STEP_COLUMNS: fold_columns(s, t, e); break;
    case CP_STEP_TOTAL: fold_total(s, t, e); break;
    }
  }
}

/* ---- units of work ---- */

/* Rows of the tile at `row`: it ends where a piece of columns does. */
static int64_t high_at(const cp_chain *c, int64_t row, int64_t end) {
  int64_t high = least(c->high, end - row);
  for (uint32_t i = 0; c->columns && i < c->nsteps; i++)
    if (c->steps[i].kind == CP_STEP_COLUMNS) {
      const int64_t piece = c->folds[c->steps[i].fold].cut.rows;
      high = least(high, piece - row % piece);
    }
  return high;
}

/* Elements [first, first + wide) of rows [begin, end). */
static void run_rows(state *s, tile *t, int64_t begin, int64_t end) {
  for (t->at.row = begin; t->at.row < end; t->at.row += t->at.high) {
    t->at.high = high_at(s->c, t->at.row, end);
    run_tile(s, t);
  }
}

/* Only what is looked at is set: of small chains that would be most of the work. */
static void begin_walk(state *s, tile *t, const cp_chain *c, char *base) {
  s->c = c;
  s->base = base;
  s->room = c->room;
  for (uint32_t k = 0; k < c->nmemory; k++) s->filled[k] = false, s->of[k] = NULL;
  for (uint32_t k = 0; k < c->nfolds; k++) s->at[k] = 0;
  for (uint32_t k = 0; k < c->nblocks; k++) t->spots[CP_IN_BLOCK + k] = base + k * c->room.block;
  for (uint32_t k = 0; k < c->nnumbers; k++)
    t->spots[CP_IN_NUMBERS + k] = base + c->room.rows + k * c->room.numbers;
}

static void run_single(const cp_chain *c) {
  _Alignas(CP_LINE) char base[CP_WALK_ROOM];
  state s;
  tile t;
  begin_walk(&s, &t, c, base);
  t.at.row = t.at.first = 0;
  t.at.high = c->rows;
  t.at.wide = c->row;
  run_tile(&s, &t);
}

static void range(void *ud, int64_t begin, int64_t end) {
  const cp_chain *c = ud;
  _Alignas(CP_LINE) char base[CP_WALK_ROOM];
  state s;
  tile t;
  begin_walk(&s, &t, c, base);
  t.at.high = 1;
  t.at.row = t.at.first = 0;
  begin *= c->unit, end *= c->unit;
  const int64_t from = c->rows == 1 ? begin : 0, to = c->rows == 1 ? least(end, c->row) : c->row;
  const bool across = c->columns && c->rows > 1; /* parts of rows one under the other */
  if (c->rows > 1 && !across) {
    for (int64_t row = begin; row < least(end, c->rows); row += c->high)
      for (t.at.first = 0; t.at.first < to; t.at.first += t.at.wide) {
        t.at.wide = least(c->wide, to - t.at.first);
        run_rows(&s, &t, row, least(row + c->high, least(end, c->rows)));
      }
    return;
  }
  for (t.at.first = from; t.at.first < to; t.at.first += t.at.wide) {
    t.at.wide = least(c->wide, to - t.at.first);
    if (across)
      run_rows(&s, &t, begin, least(end, c->rows));
    else
      run_tile(&s, &t);
  }
}

/* Pieces into one, in their order. */
static void finish_fold(const cp_folding *f, kn_tensor *const *vals, int64_t n) {
  if (f->pieces > 1)
    f->of.accs(f->partial, f->partial + f->width * CP_NUMBER, f->width * CP_NUMBER, f->pieces - 1, n);
  cp_fold_finish(&f->of, f->partial, n, kn_tensor_data(vals[f->node->out[0]->id]));
}

/* ---- a run ---- */

static kn_status fold_apart(kn_context *ctx, const cp_chain *c, cp_folding *f, bool rows,
                            kn_tensor *const *vals) {
  const kn_node *n = f->node;
  kn_tensor *in[2] = {vals[n->in[0]->id], n->ntensor > 1 ? vals[n->in[1]->id] : NULL};
  kn_tensor *out = vals[n->out[0]->id];
  if (rows) {
    KN_TRY(kn_tensor_new(ctx, &out->type, &f->made));
    out = f->made;
  }
  kn_status st = c->set->provider->kernel[n->op](ctx, n->attrs, in, (int)n->ntensor, &out);
  return st == KN_DECLINED ? kn_ops[n->op].kernel(ctx, n->attrs, in, (int)n->ntensor, &out) : st;
}

/* Values that do not lie as rows are folded by the eager kernel, which goes another way then. */
static kn_status fold_strange(kn_context *ctx, cp_chain *c, kn_tensor *const *vals) {
  for (uint32_t i = 0; i < c->nsteps; i++) {
    if (c->steps[i].kind < CP_STEP_FOLD) continue;
    cp_folding *f = &c->folds[c->steps[i].fold];
    f->apart = f->outside && !kn_tensor_contiguous(vals[f->node->in[0]->id]);
    if (f->apart) KN_TRY(fold_apart(ctx, c, f, c->steps[i].kind == CP_STEP_FOLD, vals));
  }
  return KN_OK;
}

kn_status cp_chain_run(kn_context *ctx, cp_chain *c, kn_tensor *const *vals) {
  if (!cp_chain_lies_as_before(c, vals)) {
    if (kn_type_numel(&c->shape) == 0) return KN_OK;
    cp_chain_bind(c, vals);
  }
  for (uint32_t k = 0; k < c->nmemory; k++) c->operands[k].data = kn_tensor_data(vals[c->memory[k].value]);
  c->ctx = ctx;
  if (c->single && !c->nfolds) {
    run_single(c);
    return KN_OK;
  }
  kn_status st = c->nfolds ? fold_strange(ctx, c, vals) : KN_OK;
  if (st == KN_OK) {
    const int64_t elements = c->unit * (c->rows == 1 ? 1 : c->row);
    kn_parallel_for(ctx, c->units, (c->grain + elements - 1) / elements, range, c);
    for (uint32_t i = 0; i < c->nsteps; i++) {
      const cp_folding *f = &c->folds[c->steps[i].fold];
      if (c->steps[i].kind >= CP_STEP_COLUMNS && !f->apart)
        finish_fold(f, vals, c->steps[i].kind == CP_STEP_COLUMNS ? c->row : 1);
    }
  }
  for (uint32_t i = 0; i < c->nfolds; i++) {
    kn_tensor_release(c->folds[i].made);
    c->folds[i].made = NULL;
  }
  return st;
}
