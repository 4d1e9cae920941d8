/* Pieces of plans as CUDA graphs: parts are run while the stream captures, branches and loops become
 * conditional nodes, numbers are cells of the device. One launch, and the host waits only for what it asks
 * for. */
#ifndef KN_CUDA_LAUNCH_H
#define KN_CUDA_LAUNCH_H
#include "backends/cuda/device.h"
#include "graph/target.h"

extern const kn_launcher cu_launcher;

typedef struct cu_launch_stats {
  uint64_t captured, launches,
      waits; /* graphs made, launches of them, launches that waited for numbers or faults */
} cu_launch_stats;
cu_launch_stats cu_launches_read_stats(const cu_device *d);

#endif
