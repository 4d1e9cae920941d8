/* Programs written as C in our sources: their text made for dtypes and sizes, their arguments declared once
 * for both sides, their kernels launched. */
#ifndef KN_CUDA_PROGRAM_H
#define KN_CUDA_PROGRAM_H
#include "backends/cuda/kernel.h"

typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;
typedef uint64_t u64;

/* Its text: what stands between the parentheses, which the compiler of the host does not look at. */
#define CU_SOURCE(...) #__VA_ARGS__ "\n"
/* A struct that a kernel takes by value, declared here and as text. */
#define CU_ARGUMENT(name, ...)                                                                               \
  typedef struct name __VA_ARGS__ name;                                                                      \
  static const char name##_text[] = "typedef struct " #name #__VA_ARGS__ " " #name ";\n"

enum { CU_THREADS = 256, CU_PIECES = 9 };

/* Before the text stand, as far as they are asked for:
 *   EACH(i, n)         a loop over i from 0 to n - 1, of which each thread of the grid takes its own
 *   EACH_DIM(k, c, i, rank, dims)
 *                      a loop over the dims k, the last first, c being where element i is along them
 *   pos                an unsigned type that counts the elements: 32 bits, or 64 if `wide`
 *   E                  the type of elements, of a dtype or of so many bytes
 *   T GET PUT          the dtype that they are computed in; an element as that, and back (rounded once)
 *   PUT_F64 PUT_I64    a number as an element, as `cast` makes it
 *   I                  the type of index values */
typedef struct cu_program {
  const char *name; /* begins the key; with the dtypes it says all that the text is made from */
  const char *text[CU_PIECES];
  bool wide;
  enum { CU_NO_ELEMENTS, CU_OF_DTYPE, CU_OF_BYTES } elements;
  kn_dtype dtype;
  size_t bytes;
  kn_dtype index; /* KN_BOOL: none */
} cu_program;

/* PLUS(a, b) and TIMES(a, b) of two T. */
const char *cu_arithmetic(kn_dtype dtype);

/* Launches kernel(argument) so that `count` elements are served by a grid-stride loop of CU_THREADS threads;
 * nothing when there are none. */
kn_status cu_start(kn_context *ctx, cu_device *d, const cu_program *p, const char *kernel, int64_t count,
                   void *argument);
/* The same with a grid of the caller's. */
kn_status cu_start_blocks(kn_context *ctx, cu_device *d, const cu_program *p, const char *kernel,
                          const unsigned blocks[2], unsigned threads, void *argument);
/* Bytes of the device, for the host; waits for all that was launched. */
kn_status cu_read(kn_context *ctx, cu_device *d, void *to, CUdeviceptr from, size_t bytes);
/* Neighbouring dims over which both strides go on evenly become one; how many there are then. */
int cu_join_dims(int rank, i64 *dims, i64 *a, i64 *b);
static inline bool cu_is_wide(int64_t count) { return count > INT32_MAX; }

#endif
