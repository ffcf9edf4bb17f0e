// The emulated device itself: barriers and shuffles meet, and what a device would refuse is
// refused.
#include "cuda_fixture.h"
#include "omnima/kernels/cuda/device.h"

namespace omnima::kernels::cuda {
namespace {

void sum_block(const float* x, float* sums) {
  __shared__ float shared[4];
  const float sum = block_sum(x[blockIdx.x * blockDim.x + threadIdx.x], shared);
  sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

void without_barrier(const float* x, float* out) {
  __shared__ float shared[64];
  shared[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
}

void half_a_barrier(float* out) {
  if (threadIdx.x < 16) __syncthreads();
  out[threadIdx.x] = 1;
}

TEST(Emulation, EveryThreadGetsTheSumOfItsBlock) {
  const at::Tensor x = drawn({3 * 128}, 1), sums = at::empty({3 * 128}, at::kFloat);
  launch(sum_block, grid_of(3), 128, nullptr, data<float>(x), data<float>(sums));
  const at::Tensor expected = x.view({3, 128}).sum(1, true).expand({3, 128}).reshape({-1});
  EXPECT_LE(distance(sums, expected), 1e-6);
}

TEST(Emulation, AMissingBarrierShowsInOneOfTheOrders) {
  const at::Tensor x = drawn({64}, 1);
  at::Tensor results[2];
  for (const bool falling : {false, true}) {
    emulated_cuda::set_falling_order(falling);
    results[falling] = at::empty({64}, at::kFloat);
    launch(without_barrier, grid_of(1), 64, nullptr, data<float>(x), data<float>(results[falling]));
  }
  emulated_cuda::set_falling_order(false);
  EXPECT_FALSE(same_bits(results[0], results[1]));
}

TEST(EmulationDeathTest, RefusesWhatTheDeviceCannotDo) {
  const at::Tensor out = at::empty({64}, at::kFloat);
  EXPECT_DEATH(launch(half_a_barrier, grid_of(1), 64, nullptr, data<float>(out)),
               "not all threads");
  EXPECT_DEATH(launch(half_a_barrier, grid_of(1), 33, nullptr, data<float>(out)), "would refuse");
  EXPECT_DEATH(launch(half_a_barrier, grid_of(1, 70000), 32, nullptr, data<float>(out)), "refuse");
}

}  // namespace
}  // namespace omnima::kernels::cuda
