/* What stands before every source for a device: the names that sources use, in CUDA. spec/cuda/sim/emu.h has
 * the same names in C. Included by kernel.c alone. */
#ifndef KN_CUDA_PRELUDE_H
#define KN_CUDA_PRELUDE_H

static const char cu_prelude[] =
    /* Types. Elements of bool are u8; halves are u16. */
    "typedef unsigned char u8; typedef signed char i8; typedef unsigned short u16; typedef short i16;\n"
    "typedef unsigned int u32; typedef int i32; typedef unsigned long long u64; typedef long long i64;\n"
    "typedef struct __align__(16) v16 { u32 x, y, z, w; } v16;\n"
    /* Kernels, and where a thread stands. */
    "#define KERNEL(threads, name) extern \"C\" __global__ void __launch_bounds__(threads) name\n"
    "#define DEVICE static __device__ __forceinline__\n"
    "#define RESTRICT __restrict__\n"
    "#define SHARED(type, name, n) __shared__ type name[n]\n"
    "#define SHARED_BYTES(type, name) extern __shared__ v16 cu_shared_bytes[]; type *name = (type "
    "*)cu_shared_bytes\n"
    "#define THREAD threadIdx.x\n"
    "#define THREADS blockDim.x\n"
    "#define BLOCK blockIdx.x\n"
    "#define BLOCK_Y blockIdx.y\n"
    "#define BLOCK_Z blockIdx.z\n"
    "#define BLOCKS gridDim.x\n"
    "#define BLOCKS_Y gridDim.y\n"
    "#define BLOCKS_Z gridDim.z\n"
    "#define SYNC() __syncthreads()\n"
    "#define FENCE() __threadfence()\n"
    /* Numbers as bits. */
    "#define INF_F32 __int_as_float(0x7f800000)\n"
    "#define NAN_F32 __int_as_float(0x7fc00000)\n"
    "#define INF_F64 __longlong_as_double(0x7ff0000000000000ll)\n"
    "#define NAN_F64 __longlong_as_double(0x7ff8000000000000ll)\n"
    "DEVICE u32 bits_f32(float x) { return __float_as_uint(x); }\n"
    "DEVICE float f32_bits(u32 x) { return __uint_as_float(x); }\n"
    "DEVICE u64 bits_f64(double x) { return (u64)__double_as_longlong(x); }\n"
    "DEVICE double f64_bits(u64 x) { return __longlong_as_double((i64)x); }\n"
    /* Halves, rounded once to nearest, ties to even. A double becomes a float whose last bit is odd wherever
     * something was lost; rounding that to far fewer bits gives what rounding once would have. */
    "DEVICE float f32_of_f16(u16 x) { float r; asm(\"cvt.f32.f16 %0, %1;\" : \"=f\"(r) : \"h\"(x)); return "
    "r; }\n"
    "DEVICE u16 f16_of_f32(float x) { u16 r; asm(\"cvt.rn.f16.f32 %0, %1;\" : \"=h\"(r) : \"f\"(x)); return "
    "r; }\n"
    "DEVICE u16 f16_of_f64(double x) { u16 r; asm(\"cvt.rn.f16.f64 %0, %1;\" : \"=h\"(r) : \"d\"(x)); return "
    "r; }\n"
    "DEVICE float f32_of_bf16(u16 x) { return __uint_as_float((u32)x << 16); }\n"
    "#if __CUDA_ARCH__ >= 800\n"
    "DEVICE u16 bf16_of_f32(float x) { u16 r; asm(\"cvt.rn.bf16.f32 %0, %1;\" : \"=h\"(r) : \"f\"(x)); "
    "return r; }\n"
    "#else\n"
    "DEVICE u16 bf16_of_f32(float x) {\n"
    "  u32 u = __float_as_uint(x);\n"
    "  return (u16)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : (u + 0x7fffu + (u >> 16 & 1)) >> "
    "16);\n"
    "}\n"
    "#endif\n"
    "DEVICE u16 bf16_of_f64(double x) {\n"
    "  float f = __double2float_rz(x);\n"
    "  return bf16_of_f32((double)f == x ? f : __uint_as_float(__float_as_uint(f) | 1));\n"
    "}\n"
    /* Values of other threads of the warp, whose threads all ask; where there is none, their own. */
    "#define CU_WARP(type, name) \\\n"
    "  DEVICE type warp_xor_##name(type v, int lanes) { return __shfl_xor_sync(~0u, v, lanes); } \\\n"
    "  DEVICE type warp_up_##name(type v, int lanes) { return __shfl_up_sync(~0u, v, lanes); } \\\n"
    "  DEVICE type warp_down_##name(type v, int lanes) { return __shfl_down_sync(~0u, v, lanes); } \\\n"
    "  DEVICE type warp_from_##name(type v, int lane) { return __shfl_sync(~0u, v, lane); }\n"
    "CU_WARP(float, f32)\nCU_WARP(double, f64)\nCU_WARP(i64, i64)\nCU_WARP(u64, u64)\nCU_WARP(u32, u32)\n"
    "CU_WARP(i32, i32)\n"
    "DEVICE u32 warp_vote(int yes) { return __ballot_sync(~0u, yes); }\n"
    /* Memory that several threads change; each gives what was there before. */
    "#define CU_ATOMIC(verb, call, type, name) \\\n"
    "  DEVICE type atomic_##verb##_##name(type *p, type v) { return call(p, v); }\n"
    "CU_ATOMIC(add, atomicAdd, float, f32)\nCU_ATOMIC(add, atomicAdd, double, f64)\n"
    "CU_ATOMIC(add, atomicAdd, i32, i32)\nCU_ATOMIC(add, atomicAdd, u32, u32)\n"
    "CU_ATOMIC(add, atomicAdd, u64, u64)\nCU_ATOMIC(max, atomicMax, i32, i32)\n"
    "CU_ATOMIC(min, atomicMin, i32, i32)\nCU_ATOMIC(max, atomicMax, u32, u32)\n"
    "CU_ATOMIC(min, atomicMin, u32, u32)\nCU_ATOMIC(max, atomicMax, i64, i64)\n"
    "CU_ATOMIC(min, atomicMin, i64, i64)\nCU_ATOMIC(max, atomicMax, u64, u64)\n"
    "CU_ATOMIC(min, atomicMin, u64, u64)\nCU_ATOMIC(or, atomicOr, u32, u32)\n"
    "CU_ATOMIC(exchange, atomicExch, u32, u32)\nCU_ATOMIC(exchange, atomicExch, u64, u64)\n"
    "DEVICE i64 atomic_add_i64(i64 *p, i64 v) { return (i64)atomicAdd((u64 *)p, (u64)v); }\n"
    "DEVICE u32 atomic_cas_u32(u32 *p, u32 was, u32 v) { return atomicCAS(p, was, v); }\n"
    "DEVICE u64 atomic_cas_u64(u64 *p, u64 was, u64 v) { return atomicCAS(p, was, v); }\n"
    "DEVICE u32 mulhi_u32(u32 x, u32 y) { return __umulhi(x, y); }\n"
    "DEVICE u64 mulhi_u64(u64 x, u64 y) { return __umul64hi(x, y); }\n"
    /* Two of NVRTC's own atan side by side spill registers for sm_90 on; this one is as exact. */
    "DEVICE float cu_atan(float x) { return atanf(x); }\n"
    "DEVICE double cu_atan(double x) { return atan2(x, 1.0); }\n"
    "#define atan cu_atan\n"
    /* The driver has it: no header, no library. */
    "extern \"C\" __device__ void cudaGraphSetConditional(unsigned long long handle, unsigned int value);\n";

#endif
