// The wide products and the attention of runner.h: how a prompt is read.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/t.h>

#include <algorithm>
#include <cmath>

#include "omnima/generate/runner.h"
#include "omnima/kernels/cpu/attention.h"
#include "omnima/kernels/cpu/gemm.h"

namespace omnima::generate {
namespace {

using kernels::bfloat16;

// What is not float32 is turned into it a part at a time: a part stays in the last cache between
// its making and its product.
constexpr std::int64_t kPartBytes = 4 << 20;

// y [rows, linear's outputs] += bias.
void add_bias(const Linear& linear, std::int64_t rows, float* y, std::int64_t stride) {
  const float* bias = linear.bias.data();
  if (bias == nullptr) return;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < linear.outputs; ++i) y[row * stride + i] += bias[i];
  }
}

// Queries of a head, to be read by one thread.
struct Unit {
  std::int64_t head, first, last;
};

// Each thread reads as many whole heads as the others, and a stretch of every head that is left.
std::int64_t units_of(std::int64_t heads, std::int64_t threads) {
  return heads / threads + heads % threads;
}

// Of `rows` queries behind `known` tokens.
Unit unit_at(std::int64_t thread, std::int64_t number, std::int64_t heads, std::int64_t threads,
             std::int64_t rows, std::int64_t known, std::int64_t tile, bool windowed) {
  const std::int64_t whole = heads / threads;
  if (number < whole) return {thread * whole + number, 0, rows};
  // Of equal work: a query reads the keys before it, or a window of them.
  const auto bound = [&](std::int64_t part) {
    const double share = static_cast<double>(part) / static_cast<double>(threads);
    const auto all = static_cast<double>(rows), before = static_cast<double>(known);
    const double reads = share * (all * all + 2 * before * all);
    const double at = windowed ? share * all : std::sqrt(before * before + reads) - before;
    return part == threads ? rows : std::min<std::int64_t>(rows, std::llround(at / tile) * tile);
  };
  return {threads * whole + number - whole, bound(thread), bound(thread + 1)};
}

}  // namespace

void Runner::wide_product(const Output& output, const float* x, std::int64_t rows) {
  const Linear& linear = *output.linear;
  const quant::Matrix& matrix = linear.weight;
  const auto number = static_cast<std::int64_t>(sizeof(float));
  const bool floats = matrix.format->layout == kernels::BlockLayout::kF32;
  const std::int64_t part =
      floats ? matrix.outputs : std::max<std::int64_t>(1, kPartBytes / (matrix.inputs * number));
  const at::Tensor in = at::from_blob(const_cast<float*>(x), {rows, matrix.inputs}, at::kFloat);
  for (std::int64_t first = 0; first < matrix.outputs; first += part) {
    const std::int64_t count = std::min(part, matrix.outputs - first);
    const void* weights = matrix.row(first);
    if (!floats) {
      void* here = part_.get(static_cast<std::size_t>(count * matrix.inputs * number));
      quant::dequantize_rows(matrix, first, count, static_cast<float*>(here));
      weights = here;
    }
    const at::Tensor weight =
        at::from_blob(const_cast<void*>(weights), {count, matrix.inputs}, at::kFloat);
    at::Tensor out = at::from_blob(output.y + first, {rows, count}, {output.stride, 1}, at::kFloat);
    at::mm_out(out, in, weight.t());
  }
  add_bias(linear, rows, output.y, output.stride);
}

bool Runner::has_tiles() const { return wide_ && !buckets_.defined(); }

void Runner::attend_in_tiles(std::int64_t layer) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t width =
      (config_.num_attention_heads + 2 * config_.num_key_value_heads) * config_.head_dim;
  const std::int64_t tokens = rows_.front().position + rows;
  const std::size_t number = bf16_prompts_ ? sizeof(bfloat16) : sizeof(float);
  void* memory = tokens_.get(static_cast<std::size_t>(tokens * width) * number);
  const std::int64_t queries = config_.num_attention_heads * config_.head_dim;
  if (bf16_prompts_) {
    begin_halves(attended_.data(), rows, queries);
    attend_to_tiles<bfloat16>(layer, memory, halves_.row(0), halves_.stride());
  } else {
    attend_to_tiles<float>(layer, memory, attended_.data(), queries);
  }
}

template <class T>
void Runner::gather_tokens(std::int64_t layer, std::int64_t known, T* to) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t heads = config_.num_attention_heads, shared_by = config_.num_key_value_heads;
  const std::int64_t width = config_.head_dim, stride = (heads + 2 * shared_by) * width;
  const DecodeState& state = *rows_.front().state;
  // Of each thread: a key and a value.
  grow(gathered_, 2 * width * team_.size());
  const auto put = [](const float* from, std::int64_t count, T* at) {
    kernels::gemm_kernels<T>().convert(from, count, at);
    return at + count;
  };
  share(known + rows, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* const key = &gathered_[2 * width * thread];
    for (std::int64_t token = begin; token < end; ++token) {
      T* at = to + token * stride + heads * width;
      if (token < known) {
        for (std::int64_t head = 0; head < shared_by; ++head) {
          state.read(layer, head, token, key, key + width);
          put(key, width, at + head * width);
          put(key + width, width, at + (shared_by + head) * width);
        }
        continue;
      }
      const std::int64_t row = token - known;
      put(&q_[row * heads * width], heads * width, at - heads * width);
      at = put(&k_[row * shared_by * width], shared_by * width, at);
      put(&v_[row * shared_by * width], shared_by * width, at);
    }
  });
}

// Writes the rows `out_stride` apart.
template <class T>
void Runner::attend_to_tiles(std::int64_t layer, void* memory, T* out, std::int64_t out_stride) {
  const auto& table = kernels::attention_kernels<T>();
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t heads = config_.num_attention_heads, shared_by = config_.num_key_value_heads;
  const std::int64_t width = config_.head_dim, stride = (heads + 2 * shared_by) * width;
  auto* tokens = static_cast<T*>(memory);
  const std::int64_t known = rows_.front().position, time = known + rows;
  gather_tokens(layer, known, tokens);
  // Scratch of a thread: what the kernel asks for, and the sums of its softmax.
  const auto lines = [](std::int64_t bytes) { return (bytes + 63) / 64 * 64; };
  const std::int64_t kernel = lines(table.scratch_bytes(time, width));
  const std::int64_t each = kernel + lines(time * static_cast<std::int64_t>(sizeof(float)));
  char* tiles = static_cast<char*>(tiles_.get(static_cast<std::size_t>(team_.size() * each)));
  const std::int64_t window = config_.window_of(layer), threads = team_.size();
  const std::int64_t units = units_of(heads, threads);
  share(units * threads, [&](std::int64_t begin, std::int64_t end, int thread) {
    char* scratch = tiles + thread * each;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto [head, first, last] =
          unit_at(i / units, i % units, heads, threads, rows, known, table.query_tile, window > 0);
      if (first == last) continue;
      const std::int64_t keys = head / (heads / shared_by);
      kernels::AttentionTask<T> task{};
      task.time = known + last;
      task.first_query = known + first;
      task.head_dim = width;
      task.group = 1;
      task.stride = stride;
      task.out_stride = out_stride;
      task.q = tokens + head * width;
      task.k = tokens + (heads + keys) * width;
      task.v = tokens + (heads + shared_by + keys) * width;
      task.out = out + head * width - known * out_stride;  // its first row is that of `known`
      task.logsumexp = reinterpret_cast<float*>(scratch + kernel);
      task.scale = static_cast<float>(config_.scale_of_scores());
      task.window = window;
      task.softcap = static_cast<float>(config_.attention_softcap);
      task.slopes = slopes_.empty() ? nullptr : &slopes_[head];
      task.blocks = config_.blocks_of(layer);
      task.first_head = head;
      table.forward(task, scratch);
    }
  });
}

}  // namespace omnima::generate
