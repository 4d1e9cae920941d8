/* The kernel of numbers: see numbers.h. Its rules are graph/scalar_rules.h, what it does numbers_device.h. */
#include "backends/cuda/numbers.h"
#include "backends/cuda/fault.h"

extern const char cu_text_scalar_rules[], cu_text_numbers_device[];

_Static_assert(sizeof(numbers_all) <= 4096 &&
                   sizeof(((numbers_all *)0)->step) / sizeof(numbers_step) == CU_MOST_NUMBERS,
               "");
_Static_assert((CU_GUARD_TRIPS + 1) * sizeof(u64) == CU_FAULT_BYTES, "");
_Static_assert(sizeof(kn_scalar) == 16 && offsetof(kn_scalar, as) == 8, "as cells are on the device");

typedef struct constant {
  const char *name;
  int value;
} constant;

static const constant constants[] = {
#define NODE(name, ...) {"KN_NODE_" #name, KN_NODE_##name},
#include "graph/nodes.def"
#undef NODE
#define X(e, ...) {"KN_" #e, KN_##e},
    KN_DTYPES(X)
#undef X
#define ROW(name)                                                                                            \
  { #name, name }
        ROW(KN_SCALAR_INT),
    ROW(KN_SCALAR_FLOAT),
    ROW(KN_SCALAR_BOOL),
    ROW(KN_CELL_FAULT),
    ROW(KN_CELL_OPERAND),
    ROW(KN_FAULT_LIMIT),
    ROW(KN_FAULT_STOPPED),
    ROW(CU_GUARD_NOTED),
    ROW(CU_GUARD_BUDGET),
    ROW(CU_GUARD_TRIPS),
    ROW(KN_NUMBER_EVAL),
    ROW(KN_NUMBER_MOVE),
    ROW(KN_NUMBER_WHEN),
    ROW(KN_NUMBER_READ),
    ROW(KN_NUMBER_WRITE),
    ROW(KN_NUMBER_CHECK),
    ROW(KN_NUMBER_POSITION),
    ROW(KN_NUMBER_ELEMENT),
    ROW(KN_NUMBER_KEEP),
#undef ROW
    {"NUMBERS_SET_IF", CU_SET_IF},
    {"NUMBERS_SET_AGAIN", CU_SET_AGAIN},
    {"NUMBERS_SET_ENTER", CU_SET_ENTER},
};

void cu_numbers_source(void *ud, cu_text *t) {
  (void)ud;
  for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
    cu_put(t, "#define %s %d\n", constants[i].name, constants[i].value);
  cu_put(t,
         "#define RULE DEVICE\n"
         "typedef struct kn_scalar { int kind; union { i64 i; double f; u8 b; } as; } kn_scalar;\n%s%s%s%s",
         numbers_step_text, numbers_all_text, cu_text_scalar_rules, cu_text_numbers_device);
}

numbers_step cu_number_step(const kn_whole_number *x) {
  numbers_step s = {
      .kind = (u32)x->kind, .op = x->op, .n = x->nin, .in = {x->in[0], x->in[1], x->in[2]}, .out = x->out};
  s.high = x->size;
  if (!x->tensor) return s;
  const kn_dtype_info *row = &kn_dtypes[x->tensor->type.dtype];
  s.dtype = x->tensor->type.dtype;
  s.tensor = cu_address(x->tensor);
  s.low = row->lowest;
  s.high = row->highest;
  return s;
}

kn_status cu_numbers(kn_context *ctx, cu_device *d, const kn_whole *w, const cu_cells *cells, uint32_t first,
                     uint32_t n, const cu_condition *condition, uint64_t drawn) {
  CUfunction f;
  KN_TRY(cu_kernel(ctx, d, "numbers", "numbers", cu_numbers_source, NULL, &f));
  do {
    numbers_all q = {.cells = cells->at,
                     .guard = cells->guard,
                     .stop = cells->stop,
                     .id = cells->id,
                     .first = first,
                     .drawn = drawn,
                     .random = w->random,
                     .n = n < CU_MOST_NUMBERS ? n : CU_MOST_NUMBERS};
    for (uint32_t i = 0; i < q.n; i++) q.step[i] = cu_number_step(&w->numbers[first + i]);
    first += q.n;
    drawn = 0;
    n -= q.n;
    if (!n && condition) {
      q.set = condition->set;
      q.handle = condition->handle;
      q.cell = condition->cell;
    }
    KN_TRY(cu_launch(ctx, d, f, (const unsigned[3]){1, 1, 1}, 1, 0, (void *[]){&q}));
  } while (n);
  return KN_OK;
}
