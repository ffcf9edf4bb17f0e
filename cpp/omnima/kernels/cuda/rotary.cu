// A block takes a token; a thread reads W pairs, turns them and writes them, so in place is safe.
#include "omnima/kernels/cuda/device.h"
#include "omnima/kernels/cuda/rotary.h"

namespace omnima::kernels::cuda {
namespace {

constexpr int kThreads = 128;

template <class T, int W>
__global__ void __launch_bounds__(kThreads) turn_tokens(RotaryTask<T> task, bool copy_v) {
  const int half = task.head_dim / 2, packs = half / W;
  const int turned = task.heads + task.kv_heads;
  const int all = turned + (copy_v ? task.kv_heads : 0);
  const std::int64_t width = static_cast<std::int64_t>(turned + task.kv_heads) * task.head_dim;
  for (std::int64_t token = blockIdx.x; token < task.tokens; token += gridDim.x) {
    const std::int64_t position =
        task.positions != nullptr ? task.positions[token] : token % task.time;
    for (int index = threadIdx.x; index < all * packs; index += kThreads) {
      const int head = index / packs, pair = (index - head * packs) * W;
      const T* source;
      if (head < task.heads) {
        source = task.q + token * task.q_stride + head * task.head_dim;
      } else if (head < turned) {
        source = task.k + token * task.k_stride + (head - task.heads) * task.head_dim;
      } else {
        source = task.v + token * task.v_stride + (head - turned) * task.head_dim;
      }
      float a[W], b[W];
      load<W>(source + pair, a);
      load<W>(source + half + pair, b);
      if (task.cos != nullptr && head < turned) {
        float cos[W], sin[W];
        load<W>(task.cos + position * half + pair, cos);
        load<W>(task.sin + position * half + pair, sin);
#pragma unroll
        for (int i = 0; i < W; ++i) {
          const float s = task.inverse ? -sin[i] : sin[i], x = a[i];
          a[i] = x * cos[i] - b[i] * s;
          b[i] = b[i] * cos[i] + x * s;
        }
      }
      T* target = task.packed + token * width + static_cast<std::int64_t>(head) * task.head_dim;
      store<W>(target + pair, a);
      store<W>(target + half + pair, b);
    }
  }
}

}  // namespace

template <class T>
void rotary(const RotaryTask<T>& task, Stream stream) {
  const T* place_of_v =
      task.packed + static_cast<std::int64_t>(task.heads + task.kv_heads) * task.head_dim;
  const bool copy_v = task.v != place_of_v;
  if (task.cos == nullptr && !copy_v) return;
  const int half = task.head_dim / 2;
  const auto whole = [](std::int64_t stride) { return stride % kPack<T> == 0; };
  const bool packs = half % kPack<T> == 0 && whole(task.q_stride) && whole(task.k_stride) &&
                     whole(task.v_stride) &&
                     aligned(task.q, task.k, task.v, task.packed, task.cos, task.sin);
  launch(packs ? turn_tokens<T, kPack<T>> : turn_tokens<T, 1>, grid_of(task.tokens), kThreads,
         stream, task, copy_v);
}

template void rotary(const RotaryTask<float>&, Stream);
template void rotary(const RotaryTask<bfloat16>&, Stream);

}  // namespace omnima::kernels::cuda
