/* The blocking of matrix products: over columns, then k, so that a block of B stays in the second cache,
 * packed once for all rows; a panel of A stays in the first. Sums go over k in one order whatever the threads
 * do. Compiled once. */
#include "backends/cpu/gemm.h"
#include "core/parallel.h"
#include <string.h>

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

typedef struct block { /* of columns and of k */
  const cp_gemm *g;
  int64_t column, columns, p, k;
  char *panels;  /* of B, packed; NULL: B itself is used */
  int64_t chunk; /* panels of B that one item of work goes over */
  char *c;       /* the columns of C: its own, or a copy that is put in place at the end */
  int64_t c_row;
} block;

/* ---- packing a block of B ---- */

static void pack_panels(void *ud, int64_t begin, int64_t end) {
  const block *b = ud;
  const cp_gemm *g = b->g;
  const cp_kit *kit = g->kit;
  for (int64_t i = begin; i < end; i++) {
    int64_t j = b->column + i * kit->columns, width = least(kit->columns, b->column + b->columns - j);
    char *to = b->panels + i * kit->columns * b->k * kit->size;
    if (g->pack_b)
      g->pack_b(g, b->p, b->k, j, width, to);
    else
      kit->pack(width, kit->columns, b->k, g->b + (b->p * g->b_row + j * g->b_column) * kit->size,
                g->b_column, g->b_row, to);
  }
}

/* ---- tiles ---- */

typedef union panel_room {
  _Alignas(64) char bytes[CP_MOST_ROWS * CP_PANEL_K * 8];
} panel_room;

static void tiles(const block *b, int64_t row, int64_t rows, const char *a, int64_t first, int64_t last) {
  const cp_gemm *g = b->g;
  const cp_kit *kit = g->kit;
  for (int64_t i = first; i < last; i++) {
    int64_t j = b->column + i * kit->columns, width = least(kit->columns, b->column + b->columns - j);
    const char *panel = b->panels ? b->panels + i * kit->columns * b->k * kit->size
                                  : g->b + (b->p * g->b_row + j) * kit->size;
    int64_t step = b->panels ? kit->columns : g->b_row;
    char *c = b->c + (row * b->c_row + j - b->column) * kit->size;
    bool add = b->p > 0;
    if (g->bias && !add) {
      kit->fill(rows, width, g->bias + row * kit->size, c, b->c_row);
      add = true;
    }
    kit->tile(rows, b->k, a, panel, step, c, b->c_row, width, add);
  }
}

/* Items: panels of rows, and for each, chunks of panels of columns. */
static void multiply(void *ud, int64_t begin, int64_t end) {
  const block *b = ud;
  const cp_gemm *g = b->g;
  const cp_kit *kit = g->kit;
  int64_t panels = over(b->columns, kit->columns), chunks = over(panels, b->chunk), packed = -1;
  panel_room a;
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / chunks * kit->rows, rows = least(kit->rows, g->m - row), first = i % chunks * b->chunk;
    if (row != packed)
      kit->pack(rows, rows, b->k, g->a + (row * g->a_row + b->p * g->a_column) * kit->size, g->a_row,
                g->a_column, a.bytes);
    packed = row;
    tiles(b, row, rows, a.bytes, first, least(first + b->chunk, panels));
  }
}

/* ---- blocks ---- */

static int64_t grain(int64_t work) { return CP_LEAST_WORK / (work > 0 ? work : 1) + 1; }

/* A block of C from its copy to the groups it lies in. Ranges are of rows. */
static void put_rows(void *ud, int64_t begin, int64_t end) {
  const block *b = ud;
  const cp_gemm *g = b->g;
  int64_t size = g->kit->size;
  for (int64_t r = begin; r < end; r++)
    for (int64_t j = 0, width; j < b->columns; j += width) {
      int64_t at = b->column + j, in = at % g->group;
      width = least(b->columns - j, g->group - in);
      memcpy(g->c + (at / g->group * g->group_step + in + r * g->c_row) * size,
             b->c + (r * b->c_row + j) * size, (size_t)(width * size));
    }
}

/* All of k for a block of columns. */
static void columns_block(const kn_context *ctx, const cp_gemm *g, int64_t column, int64_t columns,
                          char *panels, char *copy) {
  const cp_kit *kit = g->kit;
  int64_t steps = over(g->k, CP_PANEL_K), each = over(g->k, steps), count = over(columns, kit->columns),
          row_panels = over(g->m, kit->rows);
  block b = {.g = g, .column = column, .columns = columns, .panels = panels, .chunk = count};
  b.c = copy ? copy : g->c + column * kit->size;
  b.c_row = copy ? columns : g->c_row;
  if (row_panels < 4 * ctx->threads) b.chunk = over(count, over(4 * ctx->threads, row_panels));
  for (; b.p < g->k; b.p += each) {
    b.k = least(each, g->k - b.p);
    if (panels) kn_parallel_for(ctx, count, grain(kit->columns * b.k * 8), pack_panels, &b);
    kn_parallel_for(ctx, row_panels * over(count, b.chunk), grain(kit->rows * b.chunk * kit->columns * b.k),
                    multiply, &b);
  }
  if (copy) kn_parallel_for(ctx, g->m, grain(columns * 4), put_rows, &b);
}

typedef struct job {
  const kn_context *ctx;
  const cp_gemm *g;
  int64_t width, blocks; /* columns of a block */
  char *room;            /* `panels` and `copy` bytes for each of `parts` ranges of blocks */
  size_t panels, copy;
  int64_t parts;
} job;

static void run_part(void *ud, int64_t begin, int64_t end) {
  const job *w = ud;
  for (int64_t part = begin; part < end; part++) {
    char *room = w->room + (size_t)part * (w->panels + w->copy);
    for (int64_t i = w->blocks * part / w->parts; i < w->blocks * (part + 1) / w->parts; i++)
      columns_block(w->ctx, w->g, i * w->width, least(w->width, w->g->n - i * w->width),
                    w->panels ? room : NULL, w->copy ? room + w->panels : NULL);
  }
}

/* Few rows that lie along k with many that do: no packing, each row of the many is read once. */
typedef struct dot_job {
  const cp_kit *kit;
  int64_t m, k;
  const char *x, *y;
  int64_t x_row, y_row;
  char *c;
  int64_t c_row, c_column;
} dot_job;

static void run_dots(void *ud, int64_t begin, int64_t end) {
  const dot_job *d = ud;
  d->kit->dots(d->m, end - begin, d->k, d->x, d->x_row, d->y + begin * d->y_row * d->kit->size, d->y_row,
               d->c + begin * d->c_column * d->kit->size, d->c_row, d->c_column);
}

static bool is_dots(const cp_gemm *g) {
  bool along = (g->a_column == 1 || g->k == 1) && (g->b_row == 1 || g->k == 1);
  return g->k >= CP_LONG_SUM && along && (g->m <= CP_MOST_ROWS || g->n <= CP_MOST_ROWS / 2);
}

static void by_dots(const kn_context *ctx, const cp_gemm *g) {
  dot_job d = {g->kit, g->m, g->k, g->a, g->b, g->a_row, g->b_column, g->c, g->c_row, 1};
  int64_t n = g->n;
  if (g->m > CP_MOST_ROWS) { /* the rows of A are the many */
    d = (dot_job){g->kit, g->n, g->k, g->b, g->a, g->b_column, g->a_row, g->c, 1, g->c_row};
    n = g->m;
  }
  kn_parallel_for(ctx, n, grain(d.m * d.k), run_dots, &d);
}

/* Few rows with a small matrix, or hardly any work: packing would be most of it. The same sums as those of
 * tiles. */
static bool is_strips(const cp_gemm *g) {
  const int64_t work = g->m * g->n * g->k;
  const bool few = g->m <= CP_FEW_ROWS, tiny = work <= CP_TINY_WORK && g->n < g->kit->columns;
  if (!(few && work <= CP_LEAST_WORK) && !tiny) return false;
  return g->b_column == 1 || (g->b_row == 1 && g->k < CP_LONG_SUM);
}

static void by_strips(const cp_gemm *g) {
  const cp_kit *kit = g->kit;
  if (g->b_column != 1) {
    kit->turned(g->m, g->n, g->k, g->a, g->a_row, g->a_column, g->b, g->b_column, g->c, g->c_row);
    return;
  }
  const int64_t each = g->k <= CP_PANEL_K ? g->k : over(g->k, over(g->k, CP_PANEL_K));
  for (int64_t p = 0; p < g->k; p += each)
    kit->strips(g->m, g->n, least(each, g->k - p), g->a + p * g->a_column * kit->size, g->a_row, g->a_column,
                g->b + p * g->b_row * kit->size, g->b_row, g->c, g->c_row, p > 0);
}

/* Few rows with a large matrix, which is waited for: it is read in the order in which it lies. */
static bool is_streams(const cp_gemm *g) {
  return g->m <= CP_FEW_ROWS && g->b_column == 1 && g->n >= CP_STREAM_COLUMNS;
}

static void run_streams(void *ud, int64_t begin, int64_t end) {
  const cp_gemm *g = ud;
  const cp_kit *kit = g->kit;
  int64_t steps = over(g->k, CP_PANEL_K), each = over(g->k, steps), j = begin * CP_STREAM_COLUMNS,
          n = least(end * CP_STREAM_COLUMNS, g->n) - j;
  for (int64_t p = 0; p < g->k; p += each)
    kit->streams(g->m, n, least(each, g->k - p), g->a + p * g->a_column * kit->size, g->a_row, g->a_column,
                 g->b + (p * g->b_row + j) * kit->size, g->b_row, g->c + j * kit->size, g->c_row, p > 0);
}

static void by_streams(const kn_context *ctx, const cp_gemm *g) {
  cp_gemm copy = *g;
  kn_parallel_for(ctx, over(g->n, CP_STREAM_COLUMNS), grain(CP_STREAM_COLUMNS * g->m * g->k), run_streams,
                  &copy);
}

cp_gemm_way cp_gemm_way_of(const cp_gemm *g) {
  if (g->way != CP_GEMM_ASK) return g->way;
  if (g->pack_b || g->group || g->bias) return CP_GEMM_BLOCKS;
  return is_dots(g)      ? CP_GEMM_DOTS
         : is_strips(g)  ? CP_GEMM_STRIPS
         : is_streams(g) ? CP_GEMM_STREAMS
                         : CP_GEMM_BLOCKS;
}

/* An empty sum. */
static void zero(const cp_gemm *g) {
  int64_t group = g->group ? g->group : g->n, groups = group ? g->n / group : 0;
  for (int64_t i = 0; i < groups; i++)
    for (int64_t r = 0; r < g->m; r++)
      memset(g->c + (i * g->group_step + r * g->c_row) * g->kit->size, 0, (size_t)(group * g->kit->size));
}

/* The blocks; with one panel of rows packing would be more than half of the work. */
static job plan(const kn_context *ctx, const cp_gemm *g) {
  const cp_kit *kit = g->kit;
  int64_t most = CP_BLOCK_BYTES / kit->size, count = over(g->n, most);
  job w = {.ctx = ctx, .g = g, .parts = 1};
  w.width = over(over(g->n, count), kit->columns) * kit->columns;
  w.blocks = over(g->n, w.width);
  if (g->m > kit->rows || g->pack_b || g->b_column != 1 || g->n % kit->columns)
    w.panels = (size_t)(w.width * least(g->k, CP_PANEL_K) * kit->size);
  if (g->group && g->group < g->n) w.copy = (size_t)(w.width * g->m * kit->size);
  w.panels = (w.panels + 63) / 64 * 64, w.copy = (w.copy + 63) / 64 * 64;
  return w;
}

size_t cp_gemm_room(const cp_gemm *g) {
  if (cp_gemm_way_of(g) != CP_GEMM_BLOCKS) return 0;
  job w = plan(NULL, g);
  return w.panels + w.copy;
}

bool cp_gemm_at_once(const kn_context *ctx, const cp_gemm *g) {
  if (!g->m || !g->n) return true;
  if (!g->k) {
    zero(g);
    return true;
  }
  switch (cp_gemm_way_of(g)) {
  case CP_GEMM_DOTS: by_dots(ctx, g); return true;
  case CP_GEMM_STRIPS: by_strips(g); return true;
  case CP_GEMM_STREAMS: by_streams(ctx, g); return true;
  default: return false;
  }
}

void cp_gemm_in(const kn_context *ctx, const cp_gemm *g, char *room) {
  if (cp_gemm_at_once(ctx, g)) return;
  job w = plan(ctx, g);
  w.room = room;
  run_part(&w, 0, 1);
}

kn_status cp_gemm_run(kn_context *ctx, const cp_gemm *g) {
  if (cp_gemm_at_once(ctx, g)) return KN_OK;
  job w = plan(ctx, g);
  if (w.blocks >= 4 * ctx->threads) w.parts = ctx->threads;
  _Alignas(64) char few[8192];
  size_t bytes = (w.panels + w.copy) * (size_t)w.parts;
  w.room = bytes <= sizeof few ? few : kn_scratch_take(ctx, bytes);
  if (!w.room) return kn_fail_nomem(ctx, bytes);
  kn_parallel_for(ctx, w.parts, 1, run_part, &w);
  if (w.room != few) kn_scratch_give(ctx, w.room, bytes);
  return KN_OK;
}
