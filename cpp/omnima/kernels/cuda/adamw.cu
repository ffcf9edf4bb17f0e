// Buffers are 16-byte aligned: each is an allocation of its own, or a slice of one that begins at a
// multiple of four numbers.
#include "omnima/kernels/cuda/adamw.h"
#include "omnima/kernels/cuda/device.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kW = 4;  // floats an access
constexpr std::int64_t kMostSums = 1024;

__global__ void __launch_bounds__(kThreads)
    square_parts(const float* x, std::int64_t count, float* sums) {
  __shared__ float shared[kThreads / kWarp];
  const std::int64_t packs = count / kW, stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  float sum[kW] = {};
  for (std::int64_t pack = thread; pack < packs; pack += stride) {
    float v[kW];
    load<kW>(x + pack * kW, v);
#pragma unroll
    for (int i = 0; i < kW; ++i) sum[i] += v[i] * v[i];
  }
  if (thread < count % kW) sum[0] += x[packs * kW + thread] * x[packs * kW + thread];
  const float all = block_sum((sum[0] + sum[1]) + (sum[2] + sum[3]), shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

// One warp; the parts are added in double, in order.
__global__ void __launch_bounds__(kWarp)
    judge_step(const float* sums, std::int64_t number, const float* loss,
               const StepConstants* constants, Verdict* verdict) {
  __shared__ double shared[kWarp];
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < number; i += kWarp) sum += sums[i];
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int lane = 1; lane < kWarp; ++lane) sum += shared[lane];
  const StepConstants c = *constants;
  Verdict v;
  v.loss = *loss * c.rescale;
  v.grad_norm = static_cast<float>(sqrt(sum) * c.rescale);
  const bool clip = c.clip_norm > 0.0f && v.grad_norm > c.clip_norm;
  v.grad_scale = c.rescale * (clip ? c.clip_norm / v.grad_norm : 1.0f);
  v.keep_weights = !isfinite(v.loss) || !isfinite(v.grad_norm) ? 1 : 0;
  *verdict = v;
}

__device__ inline void update(const StepConstants& c, float step_size, float keep, float g,
                              float& weight, float& m, float& v) {
  m = c.beta1 * m + (1.0f - c.beta1) * g;
  v = c.beta2 * v + (1.0f - c.beta2) * g * g;
  weight = weight * keep - step_size * m / (sqrtf(v) / c.correction2 + c.eps);
}

// Loshchilov and Hutter 2019, as torch.optim.AdamW. Thread i takes pack i; the next `count % 4`
// threads take an element of the tail each.
__global__ void __launch_bounds__(kThreads)
    adamw_packs(AdamwBuffers b, const StepConstants* constants, const Verdict* verdict) {
  if (verdict->keep_weights != 0) return;
  const StepConstants c = *constants;
  const float scale = verdict->grad_scale, step_size = c.lr / c.correction1;
  const float decayed_keep = 1.0f - c.lr * c.weight_decay;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t packs = b.count / kW;
  if (index < packs) {
    const std::int64_t at = index * kW;
    float weight[kW], g[kW], m[kW], v[kW];
    load<kW>(b.weights + at, weight);
    load<kW>(b.gradients + at, g);
    load<kW>(b.exp_avg + at, m);
    load<kW>(b.exp_avg_sq + at, v);
#pragma unroll
    for (int i = 0; i < kW; ++i) {
      update(c, step_size, at + i < b.decayed ? decayed_keep : 1.0f, g[i] * scale, weight[i], m[i],
             v[i]);
    }
    store<kW>(b.weights + at, weight);
    store<kW>(b.exp_avg + at, m);
    store<kW>(b.exp_avg_sq + at, v);
    if (b.shadow != nullptr) store<kW>(b.shadow + at, weight);
  } else if (index < packs + b.count % kW) {
    const std::int64_t at = packs * kW + (index - packs);
    update(c, step_size, at < b.decayed ? decayed_keep : 1.0f, b.gradients[at] * scale,
           b.weights[at], b.exp_avg[at], b.exp_avg_sq[at]);
    if (b.shadow != nullptr) b.shadow[at] = from_float<bfloat16>(b.weights[at]);
  }
}

}  // namespace

std::int64_t norm_sums(std::int64_t count) {
  const std::int64_t sums = blocks_for(count, 16 * kThreads * kW);
  return sums < 1 ? 1 : sums > kMostSums ? kMostSums : sums;
}

void sum_of_squares(const float* x, std::int64_t count, float* sums, Stream stream) {
  launch(square_parts, grid_of(norm_sums(count)), kThreads, stream, x, count, sums);
}

void judge(const float* sums, std::int64_t number, const float* loss,
           const StepConstants* constants, Verdict* verdict, Stream stream) {
  launch(judge_step, grid_of(1), kWarp, stream, sums, number, loss, constants, verdict);
}

void adamw(const AdamwBuffers& buffers, const StepConstants* constants, const Verdict* verdict,
           Stream stream) {
  const std::int64_t work = buffers.count / kW + buffers.count % kW;
  launch(adamw_packs, grid_of(blocks_for(work, kThreads)), kThreads, stream, buffers, constants,
         verdict);
}

}  // namespace omnima::kernels::cuda
