// The body of attention_<level>.cpp: one source, compiled once for each instruction set. Products
// run on the level's gemm kernels, in the storage type with float32 sums; the softmax is float32.
#include <algorithm>
#include <cmath>

#include "omnima/kernels/cpu/attention_scores.h"
#include "omnima/kernels/cpu/vector_exp.h"

namespace omnima::kernels::OMNIMA_LEVEL {

// One tile of forward: the running softmax of Milakov and Gimelshein 2018 over the key blocks.
template <class T>
void forward_tile(const AttentionTask<T>& task, const KeyBlock& block, std::int64_t head,
                  const Tile& tile, const Scratch<T>& s) {
  const std::int64_t dim = task.head_dim;
  score(tile, MatrixView<T>{s.queries + tile.start * dim, dim, 1}, dim, s.key_columns, s.strip,
        s.scores);
  const float unit = task.scale * kLog2e;
  for (std::int64_t i = 0; i < tile.queries; ++i) {
    const std::int64_t token = tile.start + i;
    float* row = s.scores + i * tile.width;
    shape_row(task, block, tile, head, token, row, nullptr);
    const float before = s.top[token], here = maximum(row, tile.width) * unit;
    const float top = here > before || here != here ? here : before;
    Vector sum{};
    for (std::int64_t j = 0; j < tile.width; j += kLanes) {
      const Vector e = exp2_for<T>(load(row + j) * unit - top);
      sum += e;
      store(s.weights + i * tile.width + j, e);
    }
    if (task.dropout > 0) drop_row(task, block, tile, head, token, s.weights + i * tile.width);
    const float total = all_lanes(sum, [](Vector a, Vector b) { return a + b; });
    const float keep = before == top ? 1.0f : std::exp2(before - top);
    s.top[token] = top;
    s.total[token] = s.total[token] * keep + total;
    if (keep == 1.0f) continue;
    for (std::int64_t j = 0; j < dim; ++j) s.sums[token * dim + j] *= keep;
  }
  add_weighted(tile, s.weights, dim, block, s.value_rows, s.strip, s.sums + tile.start * dim);
}

// The keys of a block, turned and packed as columns.
template <class T>
void pack_keys(const AttentionTask<T>& task, const KeyBlock& block, const Scratch<T>& s) {
  const std::int64_t dim = task.head_dim;
  for (std::int64_t i = 0; i < block.count; ++i) {
    turn(task, task.k + (block.first + i) * task.stride, block.first + i, s.keys_turned + i * dim);
  }
  gemm_table<T>().pack_right({s.keys_turned, 1, dim}, dim, block.count, s.key_columns);
}

template <class T>
void turn_queries(const AttentionTask<T>& task, std::int64_t head, const Scratch<T>& s) {
  for (std::int64_t token = task.first_query; token < task.time; ++token) {
    turn(task, task.q + token * task.stride + head * task.head_dim, token,
         s.queries + token * task.head_dim);
  }
}

// Calls pack(block) and f(block, tile) for every block of keys and the tiles of queries that see
// some of it, by parts where blocks inside are not seen. A single block stays packed for all heads
// that share it.
template <class T, class G, class F>
void for_tiles(const AttentionTask<T>& task, std::int64_t head, G pack, F f) {
  for (std::int64_t first = 0; first < task.time; first += kKeys) {
    const KeyBlock block{first, std::min(kKeys, task.time - first)};
    if (head == 0 || task.time > kKeys) pack(block);
    const std::int64_t before = std::max<std::int64_t>(0, first - task.first_query);
    std::int64_t start = task.first_query + before / kQueries<T> * kQueries<T>;
    for (; start < task.time; start += kQueries<T>) {
      const Tile tile = tile_of(task, block, start);
      if (tile.width == 0) continue;
      for_parts(task, head, block, tile, [&](const Tile& part) { f(block, part); });
    }
  }
}

template <class T>
void attention_forward(const AttentionTask<T>& task, void* memory) {
  const Scratch<T> s(task.time, task.head_dim, static_cast<char*>(memory));
  const std::int64_t dim = task.head_dim;
  const auto pack = [&](const KeyBlock& block) {
    pack_keys(task, block, s);
    gemm_table<T>().pack_right({task.v + block.first * task.stride, task.stride, 1}, block.count,
                               dim, s.value_rows);
  };
  for (std::int64_t head = 0; head < task.group; ++head) {
    turn_queries(task, head, s);
    std::fill(s.sums + task.first_query * dim, s.sums + task.time * dim, 0.0f);
    std::fill(s.top + task.first_query, s.top + task.time, kMasked);
    std::fill(s.total + task.first_query, s.total + task.time, 0.0f);
    for_tiles(task, head, pack, [&](const KeyBlock& block, const Tile& tile) {
      forward_tile(task, block, head, tile, s);
    });
    for (std::int64_t token = task.first_query; token < task.time; ++token) {
      const float scale = 1.0f / s.total[token];
      T* out = task.out + token * task.out_stride + head * dim;
#pragma omp simd
      for (std::int64_t j = 0; j < dim; ++j) {
        out[j] = from_float<T>(s.sums[token * dim + j] * scale);
      }
      task.logsumexp[head * task.time + token] = s.top[token] / kLog2e + std::log(s.total[token]);
    }
  }
}

// weights = p and dweights = p * (dout v^T - sum(dout * out)) * scale, with p made anew from the
// kept logsumexp (Dao 2023). Dropout multiplies p where it meets v; a cap has a slope of its own.
template <class T>
void weight_gradients(const AttentionTask<T>& task, const KeyBlock& block, std::int64_t head,
                      const Tile& tile, float* dbias, const Scratch<T>& s) {
  const float unit = task.scale * kLog2e;
  const bool plain = task.softcap == 0 && task.dropout == 0 && dbias == nullptr;
  float slopes[kKeys], factors[kKeys], dscores[kKeys];
  std::fill(slopes, slopes + (plain ? 0 : tile.width), 1.0f);
  std::fill(factors, factors + (plain ? 0 : tile.width), 1.0f);
  for (std::int64_t i = 0; i < tile.queries; ++i) {
    const std::int64_t token = tile.start + i, at = i * tile.width;
    shape_row(task, block, tile, head, token, s.scores + at, slopes);
    const float top = task.logsumexp[head * task.time + token] * kLog2e, dot = s.total[token];
    if (plain) {
      for (std::int64_t j = at; j < at + tile.width; j += kLanes) {
        const Vector p = exp2_for<T>(load(s.scores + j) * unit - top);
        store(s.weights + j, p);
        store(s.dweights + j, p * (load(s.dscores + j) - dot) * task.scale);
      }
      continue;
    }
    if (task.dropout > 0) {
      dropout_factors(task, head, token, block.first + tile.begin, tile.width, factors);
    }
    for (std::int64_t j = 0; j < tile.width; j += kLanes) {
      const Vector p = exp2_for<T>(load(s.scores + at + j) * unit - top), kept = load(factors + j);
      const Vector dscore = p * (load(s.dscores + at + j) * kept - dot);
      store(dscores + j, dscore);
      store(s.weights + at + j, p * kept);
      store(s.dweights + at + j, dscore * task.scale * load(slopes + j));
    }
    if (dbias == nullptr) continue;
    for_distances(block, tile, token,
                  [&](std::int64_t j, std::int64_t distance) { dbias[distance] += dscores[j]; });
  }
}

template <class T>
void backward_tile(const AttentionTask<T>& task, const AttentionGradients<T>& gradients,
                   const KeyBlock& block, std::int64_t head, const Tile& tile,
                   const Scratch<T>& s) {
  const auto& gemm = gemm_table<T>();
  const std::int64_t dim = task.head_dim;
  const MatrixView<T> query{s.queries + tile.start * dim, dim, 1};
  float* dbias = gradients.dbias == nullptr ? nullptr : gradients.dbias + head * task.time;
  const MatrixView<T> grad{gradients.dout + tile.start * task.out_stride + head * dim,
                           task.out_stride, 1};
  score(tile, query, dim, s.key_columns, s.strip, s.scores);
  score(tile, grad, dim, s.value_columns, s.strip, s.dscores);
  weight_gradients(task, block, head, tile, dbias, s);
  gemm.pack_right(grad, tile.queries, dim, s.dout_rows);
  add_transposed(tile, s.weights, dim, s.dout_rows, s.strip, s.dvalues + block.first * dim);
  gemm.pack_right(query, tile.queries, dim, s.query_rows);
  add_transposed(tile, s.dweights, dim, s.query_rows, s.strip, s.dkeys + block.first * dim);
  add_weighted(tile, s.dweights, dim, block, s.key_rows, s.strip, s.sums + tile.start * dim);
}

// The sums of dout * out of every token, which its score gradients have in common.
template <class T>
void output_products(const AttentionTask<T>& task, const T* dout, std::int64_t head, float* dots) {
  for (std::int64_t token = 0; token < task.time; ++token) {
    const std::int64_t at = token * task.out_stride + head * task.head_dim;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t j = 0; j < task.head_dim; ++j) {
      dot += to_float(dout[at + j]) * to_float(task.out[at + j]);
    }
    dots[token] = dot;
  }
}

template <class T>
void attention_backward(const AttentionTask<T>& task, const AttentionGradients<T>& gradients,
                        void* memory) {
  const Scratch<T> s(task.time, task.head_dim, static_cast<char*>(memory));
  const std::int64_t dim = task.head_dim;
  const auto pack = [&](const KeyBlock& block) {
    const auto& gemm = gemm_table<T>();
    pack_keys(task, block, s);
    gemm.pack_right({s.keys_turned, dim, 1}, block.count, dim, s.key_rows);
    gemm.pack_right({task.v + block.first * task.stride, 1, task.stride}, dim, block.count,
                    s.value_columns);
  };
  std::fill(s.dkeys, s.dkeys + task.time * dim, 0.0f);
  std::fill(s.dvalues, s.dvalues + task.time * dim, 0.0f);
  for (std::int64_t head = 0; head < task.group; ++head) {
    turn_queries(task, head, s);
    output_products(task, gradients.dout, head, s.total);
    std::fill(s.sums, s.sums + task.time * dim, 0.0f);
    for_tiles(task, head, pack, [&](const KeyBlock& block, const Tile& tile) {
      backward_tile(task, gradients, block, head, tile, s);
    });
    for (std::int64_t token = 0; token < task.time; ++token) {
      turn_back(task, s.sums + token * dim, token, gradients.dq + token * task.stride + head * dim);
    }
  }
  for (std::int64_t token = 0; token < task.time; ++token) {
    const float* dvalue = s.dvalues + token * dim;
    T* dv = gradients.dv + token * task.stride;
    turn_back(task, s.dkeys + token * dim, token, gradients.dk + token * task.stride);
#pragma omp simd
    for (std::int64_t j = 0; j < dim; ++j) dv[j] = from_float<T>(dvalue[j]);
  }
}

template <class T>
std::int64_t attention_scratch(std::int64_t time, std::int64_t head_dim) {
  return Scratch<T>(time, head_dim, nullptr).at - static_cast<char*>(nullptr);
}

template <class T>
const AttentionKernels<T>& attention_table() {
  static const AttentionKernels<T> table{attention_forward<T>, attention_backward<T>, kQueries<T>,
                                         attention_scratch<T>, dropout_factors<T>};
  return table;
}
template const AttentionKernels<float>& attention_table<float>();
template const AttentionKernels<bfloat16>& attention_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
