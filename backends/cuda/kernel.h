/* Kernels from generated source: compiled by NVRTC for this device, kept in memory and on disk, launched.
 *
 * Sources are written in the part that C and CUDA C++ have in common (no templates, references, overloads of
 * our own; casts of pointers are explicit), so that the same text runs on the CPU in tests (spec/cuda). The
 * prelude (prelude.h) stands before every source: types, KERNEL, SHARED, halves, warps, atomics. */
#ifndef KN_CUDA_KERNEL_H
#define KN_CUDA_KERNEL_H
#include "backends/cuda/device.h"

/* Text that grows; numbers are printed so that every locale and compiler reads them alike (floats in hex). */
typedef struct cu_text {
  kn_heap *heap;
  char *s; /* always terminated, once something was put */
  size_t n, room;
  bool failed; /* no memory: what follows is dropped */
} cu_text;
void cu_put(cu_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cu_put_f32(cu_text *t, float x); /* 0x1.8p+1f; NAN and infinities as the prelude names them */
void cu_put_f64(cu_text *t, double x);
void cu_text_free(cu_text *t);

/* The kernel of this name in a program of this text (without the prelude). `key` names the program, without
 * the text: what the text is made from, so that it need not be made again; `write` makes it when it is not
 * there yet. */
typedef void (*cu_write_fn)(void *ud, cu_text *t);
/* A key that begins so: products are rounded before they are added to something, as they are where another
 * kernel adds them. */
#define CU_ROUNDED "rounded "
kn_status cu_kernel(kn_context *ctx, cu_device *d, const char *key, const char *name, cu_write_fn write,
                    void *ud, CUfunction *out);
/* args: addresses of the arguments, as cuLaunchKernel takes them. Nothing for an empty grid. */
kn_status cu_launch(kn_context *ctx, cu_device *d, CUfunction f, const unsigned grid[3], unsigned threads,
                    unsigned shared, void **args);
/* How many blocks of so many threads serve n elements, each thread `each` of them, in a grid-stride loop: at
 * most what the device holds at once, a few times over. */
unsigned cu_grid(const cu_device *d, int64_t n, unsigned threads, unsigned each);
/* Every source that is written from now on, with the prelude, is also given to this hook (tests: compile it
 * for other devices). NULL: none. */
typedef void (*cu_source_hook)(void *ud, const char *key, const char *source);
void cu_kernels_watch(cu_device *d, cu_source_hook hook, void *ud);
typedef struct cu_kernels_stats {
  uint64_t compiled, read; /* programs: by NVRTC, from disk */
} cu_kernels_stats;
cu_kernels_stats cu_kernels_read_stats(cu_device *d);
/* With the device. */
kn_status cu_kernels_open(kn_context *ctx, cu_device *d);
void cu_kernels_close(cu_device *d);

#endif
