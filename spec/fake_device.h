/* A device "cuda" for tests, without any CUDA: its memory is pages that nobody may touch, so that a read or a
 * write by the host crashes. Its one provider opens the pages, runs the reference kernel, and closes them.
 *
 *     static fake_device f;
 *     fake_device_open(&f, ctx);   // a root context
 *     ...                          // tensors of type.device KN_CUDA
 *     fake_device_close(&f);       // nothing of it may be alive
 *
 * One device at a time, for one thread: the provider is a constant without a state of its own. */
#ifndef SPEC_FAKE_DEVICE_H
#define SPEC_FAKE_DEVICE_H
#include "core/device.h"
#include "spec/suite.h"
#include <sys/mman.h>

enum { FAKE_ROOM = 64 << 20, FAKE_CLASSES = 21 }; /* blocks of 64 bytes, 128, … 64 MB */

typedef struct fake_device {
  kn_memory memory;
  kn_context *ctx;
  char *pages;
  size_t used;
  int open;    /* so many kernels are looking */
  int alive;   /* blocks */
  int to_host; /* copies, so far */
  int to_device;
  char **spare[FAKE_CLASSES]; /* blocks given back, to be given out again: a stack each */
  int spares[FAKE_CLASSES], room[FAKE_CLASSES];
} fake_device;

static fake_device *fake_device_now; /* what the provider opens */

static inline void fake_protect(fake_device *f, int how) {
  const size_t page = 4096; /* what was never used is closed since it was made */
  ck_assert_int_eq(mprotect(f->pages, (f->used + page - 1) / page * page, how), 0);
}

static inline void fake_look(fake_device *f) {
  if (!f->open++) fake_protect(f, PROT_READ | PROT_WRITE);
}

static inline void fake_look_away(fake_device *f) {
  if (!--f->open) fake_protect(f, PROT_NONE);
}

static inline int fake_class(size_t bytes) {
  int c = 0;
  while ((size_t)64 << c < bytes) c++;
  return c;
}

static kn_status fake_alloc(void *self, kn_context *ctx, size_t bytes, void **data) {
  fake_device *f = self;
  int c = fake_class(bytes);
  if (c >= FAKE_CLASSES) return kn_fail_nomem(ctx, bytes);
  if (f->spares[c]) {
    *data = f->spare[c][--f->spares[c]];
  } else {
    if (FAKE_ROOM - f->used < (size_t)64 << c) return kn_fail_nomem(ctx, bytes);
    *data = f->pages + f->used;
    f->used += (size_t)64 << c;
    if (f->open) fake_protect(f, PROT_READ | PROT_WRITE);
  }
  fake_look(f);
  memset(*data, 0xA5, (size_t)64 << c); /* who reads what was not written shall see it */
  fake_look_away(f);
  f->alive++;
  return KN_OK;
}

static void fake_release(void *self, void *data, size_t bytes) {
  fake_device *f = self;
  int c = fake_class(bytes);
  if (f->spares[c] == f->room[c]) {
    f->room[c] = 2 * f->room[c] + 16;
    f->spare[c] = realloc(f->spare[c], (size_t)f->room[c] * sizeof *f->spare[c]);
    ck_assert_ptr_nonnull(f->spare[c]);
  }
  f->spare[c][f->spares[c]++] = data;
  f->alive--;
}

static bool fake_owns(const fake_device *f, const void *p) {
  return (const char *)p >= f->pages && (const char *)p < f->pages + FAKE_ROOM;
}

static kn_status fake_copy(void *self, kn_context *ctx, void *to, const void *from, size_t bytes,
                           kn_copy_way way) {
  fake_device *f = self;
  (void)ctx;
  if (bytes) { /* each end where it is said to be */
    ck_assert(fake_owns(f, to) == (way != KN_TO_HOST));
    ck_assert(fake_owns(f, from) == (way != KN_TO_DEVICE));
  }
  f->to_host += way == KN_TO_HOST;
  f->to_device += way == KN_TO_DEVICE;
  fake_look(f);
  memmove(to, from, bytes);
  fake_look_away(f);
  return KN_OK;
}

static kn_status fake_synchronize(void *self, kn_context *ctx) {
  (void)self, (void)ctx;
  return KN_OK;
}

static kn_status fake_open_device(kn_context *ctx, kn_device_id d, const kn_memory **out) {
  ck_assert_int_eq(d, KN_CUDA);
  (void)ctx;
  *out = &fake_device_now->memory;
  return KN_OK;
}

/* What a kernel is given lies where its type says; plain numbers may be the host's. */
static inline void fake_check(const fake_device *f, const kn_tensor *t) {
  if (!t->storage || !t->storage->bytes) return;
  ck_assert_int_eq(t->type.device, t->storage->device);
  ck_assert(fake_owns(f, t->storage->data) == (t->type.device == KN_CUDA));
  ck_assert(t->type.device == KN_CUDA || t->type.rank == 0);
}

#define OP(name, ...)                                                                                        \
  static kn_status fake_kernel_##name(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,       \
                                      kn_tensor *const *out) {                                               \
    fake_device *f = fake_device_now;                                                                        \
    for (int i = 0; i < n; i++) fake_check(f, in[i]);                                                        \
    for (int i = 0; i < kn_ops[KN_OP_##name].outs; i++) fake_check(f, out[i]);                               \
    fake_look(f);                                                                                            \
    const kn_status st = kn_kernel_##name(ctx, attrs, in, n, out);                                           \
    fake_look_away(f);                                                                                       \
    return st;                                                                                               \
  }
#define COMPOSITE(name, ...)
#include "core/ops.def"
#undef OP
#undef COMPOSITE

static const kn_provider fake_provider = {
    .name = "fake",
    .kernel =
        {
#define OP(name, ...) [KN_OP_##name] = fake_kernel_##name,
#define COMPOSITE(name, ...)
#include "core/ops.def"
#undef OP
#undef COMPOSITE
        },
};

static inline void fake_device_open(fake_device *f, kn_context *ctx) {
  *f = (fake_device){.memory = {f, fake_alloc, fake_release, fake_copy, fake_synchronize}, .ctx = ctx};
  f->pages = mmap(NULL, FAKE_ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ck_assert_ptr_ne(f->pages, MAP_FAILED);
  fake_device_now = f;
  ctx->open_device = fake_open_device;
  ctx->memory[KN_CUDA] = NULL;
  OK(ctx, kn_device_add(ctx, KN_CUDA, &fake_provider));
}

static inline void fake_device_close(fake_device *f) {
  ck_assert_int_eq(f->alive, 0);
  ck_assert_int_eq(f->open, 0);
  kn_device_remove(f->ctx, KN_CUDA, &fake_provider);
  f->ctx->open_device = NULL;
  f->ctx->memory[KN_CUDA] = NULL;
  munmap(f->pages, FAKE_ROOM);
  for (int i = 0; i < FAKE_CLASSES; i++) free(f->spare[i]);
}

#endif
