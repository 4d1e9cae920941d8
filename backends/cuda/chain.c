/* Chains: building them, choosing how they are computed, launching. Sources are chain_text.c's and
 * chain_rows.c's. */
#include "backends/cuda/chain_layout.h"
#include <string.h>

/* ---- building ---- */

kn_dtype cu_chain_dtype(const cu_chain *c, int value) {
  return value < CU_STEP ? c->input[value].dtype : c->step[value - CU_STEP].dtype;
}

bool cu_chain_takes(kn_op op, kn_dtype as) {
  return cu_chain_folds(op) || (cu_formula_kind_of(op) && cu_formula_has(op, kn_dtypes[as].wide));
}

static bool same_operand(const cu_chain *c, const cu_operand *a, const cu_operand *b) {
  bool same = a->dtype == b->dtype && a->number == b->number && a->at == b->at && a->bits == b->bits;
  for (int d = 0; same && d < c->rank; d++) same = a->strides[d] == b->strides[d];
  return same;
}

/* What is read twice is one input. */
static int add_input(cu_chain *c, cu_operand x) {
  for (int k = 0; k < c->inputs; k++)
    if (same_operand(c, &c->input[k], &x)) return k;
  if (c->inputs == CU_CHAIN_INPUTS) {
    c->full = true;
    return 0;
  }
  c->input[c->inputs] = x;
  return c->inputs++;
}

int cu_chain_number(cu_chain *c, kn_dtype dtype, const void *element) {
  cu_operand x = {.dtype = dtype, .number = true};
  memcpy(&x.bits, element, kn_dtype_size(dtype));
  return add_input(c, x);
}

static cu_operand operand_of(const cu_chain *c, const kn_tensor *t) {
  cu_operand x = {.dtype = kn_tensor_dtype(t), .at = cu_address(t)};
  int lead = c->rank - t->type.rank;
  for (int d = 0; d < c->rank; d++)
    x.strides[d] = d < lead || (t->type.dims[d - lead] == 1 && c->dims[d] != 1) ? 0 : t->strides[d - lead];
  return x;
}

int cu_chain_input(cu_chain *c, const kn_tensor *t) {
  if (t->type.device == KN_CPU) return cu_chain_number(c, kn_tensor_dtype(t), kn_tensor_data(t));
  return add_input(c, operand_of(c, t));
}

int cu_chain_operand(cu_chain *c, const cu_operand *x) { return add_input(c, *x); }

int cu_chain_step(cu_chain *c, kn_op op, const void *attrs, const int *in, int n, kn_dtype as,
                  kn_dtype dtype) {
  cu_step s = {.op = op, .n = (uint8_t)n, .as = as, .dtype = dtype};
  for (int k = 0; k < n; k++) s.in[k] = (int8_t)in[k];
  if (cu_formula_kind_of(op) == CU_FORMULA_ORDER) {
    s.in[s.n++] = (int8_t)cu_chain_number(c, KN_I64, &((const kn_attrs_polygamma *)attrs)->n);
  } else if (cu_formula_kind_of(op) == CU_FORMULA_LIMIT) {
    const kn_attrs_clamp *a = attrs;
    const kn_number bounds[] = {a->min_number, a->max_number};
    kn_dtype wide = kn_dtypes[as].wide;
    for (int k = 0; k < 2; k++) {
      uint64_t bits;
      if (wide == KN_I64)
        kn_element_put_int(KN_I64, &bits, kn_number_int(bounds[k]));
      else
        kn_element_put_float(wide, &bits, bounds[k].near);
      s.in[s.n++] = (int8_t)cu_chain_number(c, wide, &bits);
    }
  }
  if (c->steps == CU_CHAIN_STEPS) c->full = true;
  if (c->full) return 0;
  c->step[c->steps] = s;
  return CU_STEP + c->steps++;
}

void cu_chain_output(cu_chain *c, int value, const kn_tensor *t) {
  cu_operand x = operand_of(c, t);
  cu_chain_result(c, value, &x);
}

void cu_chain_result(cu_chain *c, int value, const cu_operand *x) {
  if (c->outputs == CU_CHAIN_OUTPUTS) {
    c->full = true;
    return;
  }
  c->value[c->outputs] = (int8_t)value;
  c->output[c->outputs++] = *x;
}

/* ---- dims ---- */

static bool each(const cu_layout *p, int *o) { /* the next operand in memory */
  for (++*o; *o < CU_OPERANDS; ++*o)
    if (cu_operand_is(p, *o) && !cu_operand_of(p, *o)->number) return true;
  return false;
}

static void move_dim(cu_layout *p, int to, int from) {
  p->dims[to] = p->dims[from];
  for (int o = -1; each(p, &o);) p->strides[o][to] = p->strides[o][from];
}

static bool continues(const cu_layout *p, int a, int b) {
  for (int o = -1; each(p, &o);)
    if (p->strides[o][a] != p->strides[o][b] * p->dims[b]) return false;
  return true;
}

/* Dims [from, from + n) to `to` on, without those of size 1, joined; how many. */
static int join(cu_layout *p, int from, int n, int to) {
  int made = 0;
  for (int d = from; d < from + n; d++) {
    if (p->dims[d] == 1) continue;
    if (made && continues(p, to + made - 1, d)) {
      int64_t joined = p->dims[to + made - 1] * p->dims[d];
      move_dim(p, to + made - 1, d);
      p->dims[to + made - 1] = joined;
    } else {
      move_dim(p, to + made++, d);
    }
  }
  return made;
}

/* The largest steps of the result come first, so that it is written in order. */
static void sort_dims(cu_layout *p) {
  enum { RESULT = CU_CHAIN_INPUTS };
  for (int d = 1; d < p->rank; d++)
    for (int b = d; b > 0 && p->strides[RESULT][b - 1] < p->strides[RESULT][b]; b--) {
      cu_layout was = *p;
      move_dim(p, b - 1, b);
      p->dims[b] = was.dims[b - 1];
      for (int o = -1; each(p, &o);) p->strides[o][b] = was.strides[o][b - 1];
    }
}

static int64_t product(const int64_t *dims, int n) {
  int64_t all = 1;
  for (int d = 0; d < n; d++) all *= dims[d];
  return all;
}

/* Of a result: it has them, be they none, and not one a row. */
static bool has_elements(const cu_chain *c, int o) {
  bool any = false;
  for (int d = c->rank - c->over; d < c->rank && o >= CU_CHAIN_INPUTS; d++)
    any |= c->output[o - CU_CHAIN_INPUTS].strides[d] != 0;
  return any;
}

static void take_dims(cu_layout *p) {
  const cu_chain *c = p->c;
  int64_t most = product(c->dims, c->rank);
  bool back = false; /* strides may be negative: of what is read in reverse */
  p->rank = c->rank, p->over = c->over;
  memcpy(p->dims, c->dims, sizeof p->dims);
  for (int o = -1; each(p, &o);) memcpy(p->strides[o], cu_operand_of(p, o)->strides, sizeof p->strides[o]);
  p->rows = product(c->dims, c->rank - c->over);
  p->cols = product(c->dims + c->rank - c->over, c->over);
  for (int o = -1; each(p, &o);) {
    int64_t reach = 1;
    for (int d = 0; d < c->rank; d++) {
      reach += c->dims[d] > 0 ? (c->dims[d] - 1) * p->strides[o][d] : 0;
      back |= p->strides[o][d] < 0;
    }
    if (reach > most) most = reach;
  }
  p->wide =
      back ||
      most > INT32_MAX - (1 << 20); /* indices go past the end by less than what all threads do at once */
  if (!c->over) {
    sort_dims(p);
    p->cols = p->rows, p->rows = 1;
    p->rank = join(p, 0, p->rank, 0);
    return;
  }
  int kept = join(p, 0, c->rank - c->over, 0);
  p->over = p->cols ? join(p, c->rank - c->over, c->over, kept) : 0;
  p->rank = kept + p->over;
  if (p->over) return;
  p->dims[p->rank++] = p->cols, p->over = 1; /* a row of one element, or of none */
  for (int o = -1; each(p, &o);) p->strides[o][p->rank - 1] = !p->cols && has_elements(c, o);
}

/* ---- steps ---- */

static kn_status look_at_steps(kn_context *ctx, cu_layout *p) {
  const cu_chain *c = p->c;
  for (int i = 0; i < c->steps; i++) {
    const cu_step *s = &c->step[i];
    bool folds = cu_chain_folds(s->op);
    if (!cu_chain_takes(s->op, s->as) || (folds && !c->over))
      return kn_fail(ctx, KN_INTERNAL, "cuda: %s of %s in a chain", kn_op_name(s->op), kn_dtype_name(s->as));
    p->per_row[i] = c->over != 0;
    for (int k = 0; k < s->n; k++) {
      int from = s->in[k] - CU_STEP;
      if (from >= 0 && p->level[from] > p->level[i]) p->level[i] = p->level[from];
      p->per_row[i] &= cu_value_per_row(p, s->in[k]);
    }
    p->level[i] = (uint8_t)(p->level[i] + folds);
    p->per_row[i] |= folds;
    if (p->level[i] > p->levels) p->levels = p->level[i];
  }
  return KN_OK;
}

/* ---- layout ---- */

static cu_lie lie_of(const cu_layout *p, int o) {
  const int64_t *s = p->strides[o];
  int first = p->over ? p->rank - p->over : p->rank - 1, last = p->rank - 1;
  bool still = true, one = true, same = !p->over;
  int64_t step = 1;
  if (cu_operand_of(p, o)->number) return CU_NUMBER;
  for (int d = last; d >= 0; step *= p->dims[d--]) {
    one &= s[d] == 0;
    still &= d < first || s[d] == 0;
    same &= s[d] == step;
  }
  if (same) return CU_SAME; /* of rank 0 too */
  if (one && o < CU_CHAIN_INPUTS) return CU_ONE;
  return still ? CU_STILL : s[last] == 1 ? CU_NEAR : CU_FAR;
}

/* How many elements may go together: 16 bytes of the narrowest dtype of what lies in order, at most 32 of the
 * widest, where all of that begins and steps on multiples of as many. */
static int vector_of(const cu_layout *p, bool alone) {
  int vector = 1, most = alone ? 1 : 16;
  for (int o = -1; each(p, &o);) {
    int size = (int)kn_dtype_size(cu_operand_of(p, o)->dtype);
    if (p->lie[o] != CU_NEAR && p->lie[o] != CU_SAME) continue;
    if (16 / size > vector) vector = 16 / size;
    if (32 / size < most) most = 32 / size;
  }
  if (vector > most) vector = most;
  for (; vector > 1; vector /= 2) {
    bool fits = p->way == CU_FLAT || p->dims[p->rank - 1] % vector == 0;
    for (int o = -1; fits && each(p, &o);) {
      size_t size = kn_dtype_size(cu_operand_of(p, o)->dtype), bytes = size * (size_t)vector;
      if (p->lie[o] != CU_NEAR && p->lie[o] != CU_SAME) continue;
      if (bytes > 16) bytes = 16;
      fits &= cu_operand_of(p, o)->at % bytes == 0;
      for (int d = 0; d < p->rank - 1 && p->lie[o] == CU_NEAR; d++)
        fits &= (uint64_t)p->strides[o][d] * size % bytes == 0;
    }
    if (fits) break;
  }
  return vector;
}

/* The dim along which an input lies that does not along the last. */
static int turned_dim(const cu_layout *p) {
  enum { LEAST = 8 };
  int last = p->rank - 1;
  for (int k = 0; last > 0 && p->dims[last] >= LEAST && k < p->c->inputs; k++)
    for (int d = 0; p->lie[k] == CU_FAR && d < last; d++)
      if (p->strides[k][d] == 1 && p->dims[d] >= LEAST) return d;
  return -1;
}

/* Long functions, of which one at a time is enough to keep a thread busy. */
static bool has_special(const cu_layout *p) {
  for (int i = 0; i < p->c->steps; i++) {
    const cu_step *s = &p->c->step[i];
    if (cu_formula_kind_of(s->op) && cu_formula_needs(s->op, kn_dtypes[s->as].wide) & CU_NEEDS_SPECIAL)
      return true;
  }
  return false;
}

static void lay_elements(cu_layout *p) {
  bool flat = true;
  p->threads = 256;
  for (int o = 0; o < CU_OPERANDS; o++)
    if (cu_operand_is(p, o)) flat &= p->lie[o] == CU_SAME || p->lie[o] == CU_ONE || p->lie[o] == CU_NUMBER;
  p->turned = flat ? -1 : turned_dim(p);
  p->way = flat ? CU_FLAT : p->turned >= 0 ? CU_TILES : CU_LINES;
  p->vector = p->way == CU_TILES ? 1 : vector_of(p, has_special(p));
  if (flat) p->rank = 0;
  if (p->way != CU_TILES) return;
  size_t room = 0;
  int64_t last = p->dims[p->rank - 1], side = p->dims[p->turned];
  for (int o = 0; o < CU_OPERANDS; o++) {
    if (!cu_operand_is(p, o)) continue;
    if (p->lie[o] == CU_SAME) p->lie[o] = CU_NEAR; /* which has strides */
    if (o >= CU_CHAIN_INPUTS || p->lie[o] != CU_FAR || p->strides[o][p->turned] != 1) continue;
    size_t tile = 32 * 33 * kn_dtype_size(p->c->input[o].dtype);
    if (room + tile > 48 << 10) continue;
    p->lie[o] = CU_TURNED;
    room += tile;
  }
  p->rows = p->cols / (last * side) * ((last + 31) / 32) * ((side + 31) / 32); /* tiles */
}

/* Rows that lie side by side are read side by side. */
static bool side_by_side(const cu_layout *p) {
  int kept = p->rank - p->over;
  enum { LEAST = 8 };
  if (!kept || p->dims[kept - 1] < LEAST || cu_fold_values(p) * CU_COLUMN_THREADS * 8 > 48 << 10)
    return false;
  for (int k = 0; k < p->c->inputs; k++) {
    if (p->lie[k] == CU_NEAR) return false;
    if (p->lie[k] == CU_FAR && p->strides[k][kept - 1] == 1) return true;
  }
  return false;
}

/* Inputs that more than one pass reads, and the registers that a vector of each takes. */
static uint32_t read_again(const cu_layout *p, int *words) {
  uint32_t once = 0, again = 0;
  size_t bytes = 0;
  cu_wanted w;
  for (int pass = 1; pass <= p->levels + 1; pass++) {
    if (!cu_pass_wants(p, pass, &w)) continue;
    again |= once & w.inputs;
    once |= w.inputs;
  }
  for (int k = 0; k < p->c->inputs; k++)
    if (again >> k & 1) bytes += kn_dtype_size(p->c->input[k].dtype) * (size_t)p->vector;
  *words = (int)((bytes + 3) / 4);
  return again;
}

static bool has_element_results(const cu_layout *p) {
  for (int k = 0; k < p->c->outputs; k++)
    if (p->lie[CU_CHAIN_INPUTS + k] != CU_STILL) return true;
  return false;
}

static void lay_rows(cu_layout *p) {
  enum { HELD = 4, WORDS = 32 };
  p->way = side_by_side(p) ? CU_COLUMN : p->cols <= 1024 ? CU_WARP : CU_BLOCK;
  p->vector = p->way == CU_COLUMN ? 1 : vector_of(p, has_special(p));
  p->threads = p->way == CU_COLUMN ? CU_COLUMN_THREADS : 256;
  int words;
  p->keeps = read_again(p, &words);
  int64_t units = p->cols / p->vector;
  if (p->way == CU_BLOCK) {
    p->threads = 128;
    while (p->threads < 512 && units > p->threads * HELD) p->threads *= 2;
  }
  int team = p->way == CU_WARP ? 32 : p->way == CU_BLOCK ? p->threads : p->threads / 32, held = 1;
  while (held < 2 * HELD && (int64_t)held * team < units) held *= 2;
  bool fits = (int64_t)held * team >= units && held * words <= WORDS;
  p->held = p->keeps && fits && p->cols ? held : 0;
}

/* Few rows and long ones: each is cut, so that the device is full. */
static void cut_rows(cu_layout *p, const cu_device *d) {
  if (p->way == CU_WARP || p->levels != 1 || has_element_results(p)) return;
  int team = p->way == CU_BLOCK ? p->threads : p->threads / 32;
  int64_t blocks = p->way == CU_BLOCK ? p->rows : (p->rows + 31) / 32, unit = (int64_t)team * p->vector;
  int64_t full = 2 * (int64_t)d->processors * d->threads_per_processor / p->threads;
  int64_t parts = blocks ? full / blocks : 1, most = p->cols / (4 * unit);
  if (parts > most) parts = most;
  if (parts > 1024) parts = 1024;
  if (parts < 2) return;
  p->chunk = ((p->cols + parts - 1) / parts + unit - 1) / unit * unit;
  p->parts = (p->cols + p->chunk - 1) / p->chunk;
  p->split = true;
}

kn_status cu_chain_lay(kn_context *ctx, const cu_device *d, const cu_chain *c, cu_layout *p) {
  memset(p, 0, sizeof *p);
  p->c = c;
  if (c->full)
    return kn_fail(ctx, KN_UNSUPPORTED, "cuda: a chain has more steps or operands than one kernel takes");
  take_dims(p);
  for (int o = 0; o < CU_OPERANDS; o++)
    if (cu_operand_is(p, o)) p->lie[o] = lie_of(p, o);
  KN_TRY(look_at_steps(ctx, p));
  if (!c->over) {
    lay_elements(p);
    return KN_OK;
  }
  lay_rows(p);
  cut_rows(p, d);
  return KN_OK;
}

/* ---- key, launch ---- */

/* All that chain_text.c and chain_rows.c look at, and nothing else. */
static void put_key(cu_text *t, const cu_layout *p) {
  const cu_chain *c = p->c;
  cu_put(t, CU_ROUNDED "chain %c%s%s v%d h%d t%d r%d", "FLTWBC"[p->way], p -> wide ? " wide" : "",
         p->split ? " split" : "", p->vector, p->held, p->threads, p->rank);
  if (p->over) cu_put(t, " o%d", p->over);
  if (p->way == CU_TILES) cu_put(t, " d%d", p->turned);
  for (int o = 0; o < CU_OPERANDS; o++)
    if (cu_operand_is(p, o))
      cu_put(t, " %s%c", cu_elements[cu_operand_of(p, o)->dtype].name, "#1=-/.t"[p->lie[o]]);
  for (int i = 0; i < c->steps; i++) {
    const cu_step *s = &c->step[i];
    cu_put(t, " %s:%s:%s(", kn_op_name(s->op), cu_elements[s->as].name, cu_elements[s->dtype].name);
    for (int k = 0; k < s->n; k++) cu_put(t, k ? ",%d" : "%d", s->in[k]);
    cu_put(t, ")");
  }
  for (int k = 0; k < c->outputs; k++) cu_put(t, ">%d", c->value[k]);
}

static unsigned grid_of(const cu_layout *p, const cu_device *d) {
  switch (p->way) {
  case CU_TILES: return cu_grid(d, p->rows * p->threads, (unsigned)p->threads, 1);
  case CU_WARP: return cu_grid(d, p->rows * 32, (unsigned)p->threads, 1);
  case CU_BLOCK: return cu_grid(d, p->rows * p->threads, (unsigned)p->threads, 1);
  case CU_COLUMN: return cu_grid(d, (p->rows + 31) / 32 * p->threads, (unsigned)p->threads, 1);
  default: return cu_grid(d, (p->cols + p->vector - 1) / p->vector, (unsigned)p->threads, 1);
  }
}

static kn_status launch(kn_context *ctx, cu_device *d, const cu_layout *p, const char *key) {
  CUfunction f;
  uint64_t slot[CU_CHAIN_SLOTS];
  void *arguments[] = {slot};
  CUdeviceptr room = 0;
  size_t bytes = p->split ? (size_t)p->rows * (size_t)p->parts * (size_t)cu_fold_values(p) * 8 : 0;
  const unsigned grid[3] = {grid_of(p, d), p->split ? (unsigned)p->parts : 1, 1};
  KN_TRY(cu_kernel(ctx, d, key, "chain", cu_chain_write, (void *)(uintptr_t)p, &f));
  if (p->split) KN_TRY(cu_workspace(ctx, d, bytes, &room));
  cu_chain_arguments(p, room, slot, NULL);
  kn_status st = cu_launch(ctx, d, f, grid, (unsigned)p->threads, 0, arguments);
  if (p->split && st == KN_OK) {
    st = cu_kernel(ctx, d, key, "finish", cu_chain_write, (void *)(uintptr_t)p, &f);
    const unsigned rows[3] = {cu_grid(d, p->rows * 32, 256, 1), 1, 1};
    if (st == KN_OK) st = cu_launch(ctx, d, f, rows, 256, 0, arguments);
  }
  if (p->split) cu_free(d, room, bytes);
  return st;
}

kn_status cu_chain_run(kn_context *ctx, cu_device *d, const cu_chain *c) {
  cu_layout p;
  KN_TRY(cu_chain_lay(ctx, d, c, &p));
  if (c->over ? p.rows == 0 : p.cols == 0) return KN_OK;
  if (c->over && p.cols == 0 && has_element_results(&p) && p.levels == 0) return KN_OK;
  cu_text key = {.heap = ctx->heap};
  put_key(&key, &p);
  kn_status st = key.failed ? kn_fail_nomem(ctx, key.n) : launch(ctx, d, &p, key.s);
  cu_text_free(&key);
  return st;
}
