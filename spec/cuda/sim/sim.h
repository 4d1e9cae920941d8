/* What the software device's libcuda.so.1 offers beside the driver's functions: to the other doubles, and to
 * tests that look at it (by dlsym). */
#ifndef SPEC_SIM_H
#define SPEC_SIM_H
#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>

/* Work of a library: run(a copy of the bytes at arg) in the order of the stream, or, while the stream is
 * captured, a node of the graph, as a kernel is one. Device addresses are host addresses there. False: it was
 * refused. */
bool sim_enqueue(CUstream stream, void (*run)(void *arg), const void *arg, size_t bytes);

/* What is asked for next takes so long by the device's own clock, which events show; else a microsecond. */
void sim_takes(double seconds);

/* What has happened so far. */
typedef struct sim_counts {
  unsigned long long kernels;         /* run, those of graphs included */
  unsigned long long launches;        /* of kernels by the host */
  unsigned long long graphs;          /* launched */
  unsigned long long waits;           /* of the host for the device */
  unsigned long long copies;          /* between host and device */
  unsigned long long allocated, most; /* bytes of device memory: now, at most */
  unsigned long long blocks;          /* of device memory, now */
} sim_counts;
sim_counts sim_count(void);

#endif
