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

void Runner::multiply_wide(std::span<const Item> items) {
  const auto& [first, x, rows] = items.front();
  const std::int64_t inputs = first.linear->inputs;
  outputs_.clear();
  for (const Item& item : items) outputs_.push_back(item.output);
  if (in_halves()) return take_halves(x, rows, inputs).run(outputs_);
  floats_.begin(rows, inputs);
  share(rows, [&, x = x](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) floats_.put(row, x + row * inputs);
  });
  floats_.run(outputs_);
}

bool Runner::has_tiles() const { return wide_ && !buckets_.defined(); }

// Short pieces are read as written tokens are: their tiles would be mostly empty. What a piece is
// read by depends on itself alone.
void Runner::attend_in_pieces(std::int64_t layer) {
  const std::int64_t queries = config_.num_attention_heads * config_.head_dim;
  if (bf16_prompts_) begin_halves(attended_.data(), std::ssize(rows_), queries);
  for (std::size_t i = 0; i < pieces_.size();) {
    if (pieces_[i].count >= kWideRows) {
      attend_in_tiles(layer, pieces_[i++]);
      continue;
    }
    Stretch few{pieces_[i].first, 0};
    for (; i < pieces_.size() && pieces_[i].count < kWideRows; ++i) few.count += pieces_[i].count;
    attend_to_cache(layer, few.first, few.count);
    if (!bf16_prompts_) continue;
    share(few.count, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t row = few.first + begin; row < few.first + end; ++row) {
        halves_.put(row, &attended_[row * queries]);
      }
    });
  }
}

void Runner::attend_in_tiles(std::int64_t layer, const Stretch& piece) {
  const std::int64_t width =
      (config_.num_attention_heads + 2 * config_.num_key_value_heads) * config_.head_dim;
  const std::int64_t tokens = rows_[piece.first].position + piece.count;
  const std::size_t number = bf16_prompts_ ? sizeof(bfloat16) : sizeof(float);
  void* memory = tokens_.get(static_cast<std::size_t>(tokens * width) * number);
  const std::int64_t queries = config_.num_attention_heads * config_.head_dim;
  if (bf16_prompts_) {
    attend_to_tiles<bfloat16>(layer, piece, memory, halves_.row(piece.first), halves_.stride());
  } else {
    attend_to_tiles<float>(layer, piece, memory, &attended_[piece.first * queries], queries);
  }
}

template <class T>
void Runner::gather_tokens(std::int64_t layer, const Stretch& piece, T* to) {
  const std::int64_t rows = piece.count, known = rows_[piece.first].position;
  const std::int64_t heads = config_.num_attention_heads, shared_by = config_.num_key_value_heads;
  const std::int64_t width = config_.head_dim, stride = (heads + 2 * shared_by) * width;
  const DecodeState& state = *rows_[piece.first].state;
  // Of each thread: keys and values of a tile.
  const std::int64_t tile = kernels::kCacheTile, tiles = (known + tile - 1) / tile;
  grow(gathered_, 2 * tile * width * team_.size());
  const auto put = [](const float* from, std::int64_t count, T* at) {
    kernels::gemm_kernels<T>().convert(from, count, at);
    return at + count;
  };
  const auto put_tile = [&](std::int64_t first, float* keys) {
    float* const values = keys + tile * width;
    const std::int64_t count = std::min(tile, known - first);
    for (std::int64_t head = 0; head < shared_by; ++head) {
      state.read(layer, head, first, count, keys, values);
      T* at = to + first * stride + (heads + head) * width;
      for (std::int64_t i = 0; i < count; ++i, at += stride) {
        put(keys + i * width, width, at);
        put(values + i * width, width, at + shared_by * width);
      }
    }
  };
  share(tiles, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t i = begin; i < end; ++i) {
      put_tile(i * tile, &gathered_[2 * tile * width * thread]);
    }
  });
  share(rows, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      T* at = to + (known + row) * stride;
      const std::int64_t from = piece.first + row;
      at = put(&q_[from * heads * width], heads * width, at);
      at = put(&k_[from * shared_by * width], shared_by * width, at);
      put(&v_[from * shared_by * width], shared_by * width, at);
    }
  });
}

// Writes the rows `out_stride` apart.
template <class T>
void Runner::attend_to_tiles(std::int64_t layer, const Stretch& piece, void* memory, T* out,
                             std::int64_t out_stride) {
  const auto& table = kernels::attention_kernels<T>();
  const std::int64_t rows = piece.count;
  const std::int64_t heads = config_.num_attention_heads, shared_by = config_.num_key_value_heads;
  const std::int64_t width = config_.head_dim, stride = (heads + 2 * shared_by) * width;
  auto* tokens = static_cast<T*>(memory);
  const std::int64_t known = rows_[piece.first].position, time = known + rows;
  gather_tokens(layer, piece, tokens);
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
