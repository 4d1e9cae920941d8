/* The one table of functions of CUDA's driver and libraries: all calls go through it, so that a missing
 * library is an ordinary reason and a software device may stand in for a real one. Rows are in api.def; names
 * are as the headers' macros make them (cuMemAlloc is cuMemAlloc_v2). */
#ifndef KN_CUDA_API_H
#define KN_CUDA_API_H
#include "core/context.h"
#include <cublasLt.h>
#include <cuda.h>
#include <cudnn.h>
#include <nvrtc.h>

typedef enum cu_library {
#define LIBRARY(name, files, doc) CU_##name,
#define FUNCTION(library, name)
#include "backends/cuda/api.def"
#undef LIBRARY
#undef FUNCTION
  CU_LIBRARY_COUNT
} cu_library;

typedef struct cu_api {
#define LIBRARY(name, files, doc)
#define FUNCTION(library, name) __typeof__(&name) name;
#include "backends/cuda/api.def"
#undef LIBRARY
#undef FUNCTION
  const char *folders;            /* of the host, joined by ':', to look in first; borrowed; may be NULL */
  void *handle[CU_LIBRARY_COUNT]; /* NULL: not opened */
  bool filled[CU_LIBRARY_COUNT];  /* its functions are there */
  char path[CU_LIBRARY_COUNT][256];
} cu_api;

/* Opens one library, if it is not open yet, and fills its rows; false with the reason in `why`. Looked for in
 * the host's folders, then where the loader looks, in the toolkit's folders, and beside Python's packages.
 * Not for several threads at once. */
bool cu_api_open(cu_api *api, cu_library library, char *why, size_t size);
/* Would it be found? Opened only where just the loader knows; `path` is filled. */
bool cu_api_there(cu_api *api, cu_library library);
/* Its file name: "libcudnn.so.9". */
const char *cu_api_file(cu_library library, char *text, size_t size);
void cu_api_close(cu_api *api);
/* "CUDA_ERROR_OUT_OF_MEMORY (2)", or "error 2" where the driver has no name for it. */
const char *cu_error_text(const cu_api *api, CUresult r, char *text, size_t size);

#endif
