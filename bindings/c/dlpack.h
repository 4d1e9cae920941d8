/* DLPack's structs as its ABI has them: what dlpack.h declares, of which this build needs nothing. The suite
 * compares the two where that header is there. */
#ifndef KILN_DLPACK_H
#define KILN_DLPACK_H
#include <stdint.h>

typedef enum kiln_dl_code {
  KILN_DL_INT = 0,
  KILN_DL_UINT = 1,
  KILN_DL_FLOAT = 2,
  KILN_DL_BFLOAT = 4,
  KILN_DL_BOOL = 6
} kiln_dl_code;

typedef enum kiln_dl_device { KILN_DL_CPU = 1, KILN_DL_CUDA = 2, KILN_DL_CUDA_HOST = 3 } kiln_dl_device;

typedef struct kiln_dl_tensor {
  void *data;
  int32_t device, device_id;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t *shape, *strides; /* in elements; strides NULL: row-major */
  uint64_t byte_offset;
} kiln_dl_tensor;

typedef struct kiln_dl_managed { /* struct DLManagedTensor */
  kiln_dl_tensor tensor;
  void *owner;
  void (*deleter)(struct kiln_dl_managed *self); /* may be NULL */
} kiln_dl_managed;

enum { KILN_DL_MAJOR = 1, KILN_DL_MINOR = 0, KILN_DL_READ_ONLY = 1 };

typedef struct kiln_dl_versioned { /* struct DLManagedTensorVersioned */
  uint32_t major, minor;
  void *owner;
  void (*deleter)(struct kiln_dl_versioned *self);
  uint64_t flags;
  kiln_dl_tensor tensor;
} kiln_dl_versioned;

#endif
