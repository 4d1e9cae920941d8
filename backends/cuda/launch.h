/* Pieces of plans as CUDA graphs: parts are run while the stream captures, branches and loops become
 * conditional nodes, numbers are cells of the device. One launch, and the host waits only for what it asks
 * for. */
#ifndef KN_CUDA_LAUNCH_H
#define KN_CUDA_LAUNCH_H
#include "backends/cuda/device.h"
#include "graph/target.h"

extern const kn_launcher cu_launcher;

kn_device_launches cu_launches_of(cu_device *d);

#endif
