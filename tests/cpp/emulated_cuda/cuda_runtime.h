// A stand-in for the CUDA runtime's header, found first by the include path of the tests:
// kernels/cuda compiles against it as plain C++ and runs on the CPU. A block's threads are fibers
// that meet at
// __syncthreads() and at warp shuffles exactly where the device's do; a barrier that not all of
// them reach is an error, and blocks are run with the threads in either order, so that a result
// which hangs on a missing barrier comes out wrong.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // one block runs at a time

struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated_cuda {

// Runs every block of the grid; the threads of a block in rising order, or in falling order.
void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& kernel);
void set_falling_order(bool falling);
std::int64_t launches();  // so far

void block_barrier();
// Waits until all 32 lanes gave a value; returns that of lane `from`.
float exchange(float value, int from);

}  // namespace emulated_cuda

template <class... P, class... A>
int cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A... arguments) {
  const std::tuple<P...> kept(arguments...);
  emulated_cuda::run_grid(*config, [&] { std::apply(kernel, kept); });
  return 0;
}

inline void __syncthreads() { emulated_cuda::block_barrier(); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  return emulated_cuda::exchange(value, static_cast<int>(threadIdx.x % 32) ^ mask);
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
// One rounding each, which the compiler must not join.
inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
using std::isfinite;
