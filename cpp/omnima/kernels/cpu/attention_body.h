// The body of attention_<level>.cpp: one source, compiled once for each instruction set. Products
// run on the level's gemm kernels, in the storage type with float32 sums; the softmax is float32.
#include <algorithm>

#include "omnima/kernels/cpu/attention.h"
#include "omnima/kernels/cpu/gemm.h"
#include "omnima/kernels/cpu/vector.h"
#include "omnima/kernels/cpu/vector_exp.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
const GemmKernels<T>& gemm_table();

constexpr std::int64_t kQueries = 48;  // of a tile: whole strips at every level
constexpr std::int64_t kKeys = 256;    // of a block: what is packed of it stays in the second cache
constexpr float kMasked = -1e30f;
constexpr float kLog2e = 1.44269504089f;

inline std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

// Where everything lies in a task's scratch memory.
template <class T>
struct Scratch {
  Scratch(std::int64_t time, std::int64_t dim, char* memory) : at(memory) {
    const auto& gemm = gemm_table<T>();
    const std::int64_t keys = std::min(kKeys, round_up(time, gemm.panel_cols));
    const std::int64_t columns = keys / gemm.panel_cols * gemm.panel_bytes(dim) + kSpare;
    const std::int64_t wide = round_up(dim, gemm.panel_cols) / gemm.panel_cols;
    const std::int64_t rows = wide * gemm.panel_bytes(keys) + kSpare;
    const std::int64_t tile_rows = wide * gemm.panel_bytes(kQueries) + kSpare;
    const std::int64_t strips = std::max(
        round_up(keys, gemm.strip_rows) / gemm.strip_rows * gemm.strip_bytes(kQueries),
        kQueries / gemm.strip_rows * std::max(gemm.strip_bytes(dim), gemm.strip_bytes(keys)));
    take(queries, time * dim);
    take(keys_turned, keys * dim);
    take(key_columns, columns);
    take(value_columns, columns);
    take(key_rows, rows);
    take(value_rows, rows);
    take(query_rows, tile_rows);
    take(dout_rows, tile_rows);
    take(strip, strips + kSpare);
    take(scores, kQueries * keys);
    take(dscores, kQueries * keys);
    take(weights, kQueries * keys);
    take(dweights, kQueries * keys);
    take(sums, time * dim);
    take(dkeys, time * dim);
    take(dvalues, time * dim);
    take(top, time);
    take(total, time);
  }

  template <class X>
  void take(X*& part, std::int64_t count) {
    part = reinterpret_cast<X*>(at);
    at += round_up(count * static_cast<std::int64_t>(sizeof(X)), 64);
  }

  static constexpr std::int64_t kSpare = 64;  // packing writes whole vectors
  char* at;
  T *queries, *keys_turned;              // [time, dim], [keys, dim]: turned by their positions
  char *key_columns, *value_columns;     // packed: depth dim, columns keys
  char *key_rows, *value_rows;           // packed: depth keys, columns dim
  char *query_rows, *dout_rows, *strip;  // packed, of a tile
  float *scores, *dscores;               // [tile, keys]
  T *weights, *dweights;                 // the same in the storage type
  float* sums;                           // [time, dim]: out, or the gradient of the queries
  float *dkeys, *dvalues;                // [time, dim]
  float *top, *total;                    // [time]: of the scores, in units of log 2; backward: dot
};

template <class T>
std::int64_t place(const AttentionTask<T>& task, std::int64_t token) {
  return task.places == nullptr ? token : task.places[token];
}

// The first token that one may see.
template <class T>
std::int64_t first_seen(const AttentionTask<T>& task, std::int64_t token) {
  const std::int64_t document = token - place(task, token);
  return task.window > 0 ? std::max(document, token + 1 - task.window) : document;
}

// A head's vector, turned by its position.
template <class T>
void turn(const AttentionTask<T>& task, const T* from, std::int64_t token, T* to) {
  const std::int64_t half = task.head_dim / 2;
  if (task.cos == nullptr) {
    std::copy(from, from + task.head_dim, to);
    return;
  }
  const float* cos = task.cos + place(task, token) * half;
  const float* sin = task.sin + place(task, token) * half;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = to_float(from[i]), b = to_float(from[half + i]);
    to[i] = from_float<T>(a * cos[i] - b * sin[i]);
    to[half + i] = from_float<T>(b * cos[i] + a * sin[i]);
  }
}

// The gradient of turn: turns back and writes.
template <class T>
void turn_back(const AttentionTask<T>& task, const float* from, std::int64_t token, T* to) {
  const std::int64_t half = task.head_dim / 2;
  if (task.cos == nullptr) {
    for (std::int64_t i = 0; i < task.head_dim; ++i) to[i] = from_float<T>(from[i]);
    return;
  }
  const float* cos = task.cos + place(task, token) * half;
  const float* sin = task.sin + place(task, token) * half;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = from[i], b = from[half + i];
    to[i] = from_float<T>(a * cos[i] + b * sin[i]);
    to[half + i] = from_float<T>(b * cos[i] - a * sin[i]);
  }
}

// Some queries against some keys of a block: [begin, end) are the block's keys that any of the
// queries may see, `width` their number in whole panels.
struct Tile {
  std::int64_t start, queries;  // of the row's tokens
  std::int64_t begin, end, width;
};

struct KeyBlock {
  std::int64_t first, count;
};

template <class T>
Tile tile_of(const AttentionTask<T>& task, const KeyBlock& block, std::int64_t start) {
  const std::int64_t panel = gemm_table<T>().panel_cols;
  Tile tile{start, std::min(kQueries, task.time - start), block.count, 0, 0};
  for (std::int64_t i = start; i < start + tile.queries; ++i) {
    tile.begin = std::min(tile.begin, first_seen(task, i) - block.first);
  }
  tile.begin = std::max<std::int64_t>(0, tile.begin) / panel * panel;
  tile.end = std::min(block.count, start + tile.queries - block.first);
  tile.width = tile.end > tile.begin ? round_up(tile.end - tile.begin, panel) : 0;
  return tile;
}

// Calls f(strip, its first row) for the strips of a [rows, depth].
template <class T, class F>
void for_strips(const MatrixView<T>& a, std::int64_t rows, std::int64_t depth, char* packed, F f) {
  const auto& gemm = gemm_table<T>();
  const bool in_place = gemm.reads_rows && a.col == 1 && depth % gemm.group == 0;
  if (!in_place) gemm.pack_left(a, rows, depth, packed);
  const std::int64_t size = sizeof(T), number = gemm.group * gemm.packed_bytes;
  const std::int64_t bytes = gemm.strip_bytes(depth);
  for (std::int64_t i = 0; i < rows; i += gemm.strip_rows) {
    const std::int64_t count = std::min(gemm.strip_rows, rows - i);
    if (in_place) {
      f(GemmStrip{a.data + i * a.row, a.row * size, gemm.group * size, count}, i);
    } else {
      f(GemmStrip{packed + i / gemm.strip_rows * bytes, number, number * gemm.strip_rows, count},
        i);
    }
  }
}

// scores [queries, width] = left [queries, dim] times packed columns.
template <class T>
void score(const Tile& tile, const MatrixView<T>& left, std::int64_t dim, const char* columns,
           char* strip_memory, float* scores) {
  const auto& gemm = gemm_table<T>();
  GemmTarget<T> target;
  target.sum = scores;
  target.stride = tile.width;
  const char* panels = columns + tile.begin / gemm.panel_cols * gemm.panel_bytes(dim);
  for_strips(left, tile.queries, dim, strip_memory, [&](const GemmStrip& strip, std::int64_t row) {
    gemm.multiply(strip, panels, tile.width, dim, target.from(row, 0));
  });
}

// sums [queries, dim] += weights [queries, the tile's keys] times rows packed over a block's keys.
template <class T>
void add_weighted(const Tile& tile, const T* weights, std::int64_t dim, const KeyBlock& block,
                  const char* rows, char* strip_memory, float* sums) {
  const auto& gemm = gemm_table<T>();
  GemmTarget<T> target;
  target.sum = sums;
  target.add = true;
  target.stride = dim;
  const std::int64_t depth = round_up(tile.end - tile.begin, gemm.group);
  const char* from = rows + tile.begin * gemm.panel_cols * gemm.packed_bytes;
  for_strips(MatrixView<T>{weights, tile.width, 1}, tile.queries, depth, strip_memory,
             [&](const GemmStrip& strip, std::int64_t row) {
               for (std::int64_t j = 0; j < dim; j += gemm.panel_cols) {
                 gemm.multiply(strip, from + j / gemm.panel_cols * gemm.panel_bytes(block.count),
                               std::min(gemm.panel_cols, dim - j), depth, target.from(row, j));
               }
             });
}

// sums [keys, dim] += weights^T times rows packed over the tile's queries.
template <class T>
void add_transposed(const Tile& tile, const T* weights, std::int64_t dim, const char* rows,
                    char* strip_memory, float* sums) {
  const auto& gemm = gemm_table<T>();
  GemmTarget<T> target;
  target.sum = sums + tile.begin * dim;
  target.add = true;
  target.stride = dim;
  for_strips(MatrixView<T>{weights, 1, tile.width}, tile.end - tile.begin, tile.queries,
             strip_memory, [&](const GemmStrip& strip, std::int64_t row) {
               gemm.multiply(strip, rows, dim, tile.queries, target.from(row, 0));
             });
}

// Masks what the query of `token` may not see in its row of scores.
template <class T>
void mask_row(const AttentionTask<T>& task, const KeyBlock& block, const Tile& tile,
              std::int64_t token, float* row) {
  const std::int64_t origin = block.first + tile.begin;
  const std::int64_t begin = std::max<std::int64_t>(0, first_seen(task, token) - origin);
  const std::int64_t end = std::clamp<std::int64_t>(token + 1 - origin, 0, tile.width);
  std::fill(row, row + std::min(begin, tile.width), kMasked);
  std::fill(row + end, row + tile.width, kMasked);
}

inline std::uint32_t scrambled(std::uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

template <class T>
void dropout_factors(const AttentionTask<T>& task, std::int64_t head, std::int64_t token,
                     std::int64_t first, std::int64_t count, float* factors) {
  const std::uint64_t seed = task.dropout_seed + static_cast<std::uint64_t>(head);
  const std::uint32_t of_row = scrambled(
      static_cast<std::uint32_t>(seed) ^
      scrambled(static_cast<std::uint32_t>(seed >> 32) + static_cast<std::uint32_t>(token)));
  const auto least = static_cast<std::uint32_t>(task.dropout * 4294967296.0);
  const float kept = 1.0f / (1.0f - task.dropout);
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j) {
    const std::uint32_t drawn = scrambled(of_row + static_cast<std::uint32_t>(first + j));
    factors[j] = drawn < least ? 0.0f : kept;
  }
}

// Calls f(j, how far back) for the keys of a tile that do not come after the query.
template <class F>
void for_distances(const KeyBlock& block, const Tile& tile, std::int64_t token, F f) {
  const std::int64_t nearest = token - block.first - tile.begin;
  const std::int64_t end = std::min(tile.width, nearest + 1);
#pragma omp simd
  for (std::int64_t j = 0; j < end; ++j) f(j, nearest - j);
}

// A query's scores as the softmax takes them, but for their scale: capped, with the slope of ALiBi
// or a bias by distance, and masked. Where `slopes` is given, it receives the derivative of the
// cap.
template <class T>
void shape_row(const AttentionTask<T>& task, const KeyBlock& block, const Tile& tile,
               std::int64_t head, std::int64_t token, float* row, float* slopes) {
  if (task.softcap > 0) {
    const float inner = task.scale / task.softcap, outer = 1.0f / inner;
#pragma omp simd
    for (std::int64_t j = 0; j < tile.width; ++j) {
      const float t = fast_tanh(row[j] * inner);
      row[j] = t * outer;
      if (slopes != nullptr) slopes[j] = 1.0f - t * t;
    }
  }
  if (task.slopes != nullptr) {
    const float slope = task.slopes[head] / task.scale;
    const auto behind = static_cast<float>(token - block.first - tile.begin);
#pragma omp simd
    for (std::int64_t j = 0; j < tile.width; ++j)
      row[j] += slope * (static_cast<float>(j) - behind);
  }
  if (task.bias != nullptr) {
    const float* bias = task.bias + head * task.bias_stride;
    for_distances(block, tile, token, [&](std::int64_t j, std::int64_t distance) {
      row[j] += bias[distance] / task.scale;
    });
  }
  mask_row(task, block, tile, token, row);
}

inline float maximum(const float* row, std::int64_t count) {
  Vector top = load(row);
  for (std::int64_t j = kLanes; j < count; j += kLanes) {
    const Vector x = load(row + j);
    top = x > top ? x : top;
  }
  float best = top[0];
  for (int i = 1; i < kLanes; ++i) best = top[i] > best ? top[i] : best;
  return best;
}

// Drops weights of a query's row.
template <class T>
void drop_row(const AttentionTask<T>& task, const KeyBlock& block, const Tile& tile,
              std::int64_t head, std::int64_t token, T* weights) {
  float factors[kKeys];
  dropout_factors(task, head, token, block.first + tile.begin, tile.width, factors);
#pragma omp simd
  for (std::int64_t j = 0; j < tile.width; ++j) {
    weights[j] = from_float<T>(to_float(weights[j]) * factors[j]);
  }
}

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
    float total = 0;
    for (int j = 0; j < kLanes; ++j) total += sum[j];
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
  for (std::int64_t token = 0; token < task.time; ++token) {
    turn(task, task.q + token * task.stride + head * task.head_dim, token,
         s.queries + token * task.head_dim);
  }
}

// Calls pack(block) and f(block, tile) for every block of keys and the tiles of queries that see
// some of it. A single block stays packed for all heads that share it.
template <class T, class G, class F>
void for_tiles(const AttentionTask<T>& task, std::int64_t head, G pack, F f) {
  for (std::int64_t first = 0; first < task.time; first += kKeys) {
    const KeyBlock block{first, std::min(kKeys, task.time - first)};
    if (head == 0 || task.time > kKeys) pack(block);
    for (std::int64_t start = first / kQueries * kQueries; start < task.time; start += kQueries) {
      const Tile tile = tile_of(task, block, start);
      if (tile.width > 0) f(block, tile);
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
    std::fill(s.sums, s.sums + task.time * dim, 0.0f);
    std::fill(s.top, s.top + task.time, kMasked);
    std::fill(s.total, s.total + task.time, 0.0f);
    for_tiles(task, head, pack, [&](const KeyBlock& block, const Tile& tile) {
      forward_tile(task, block, head, tile, s);
    });
    for (std::int64_t token = 0; token < task.time; ++token) {
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
  static const AttentionKernels<T> table{attention_forward<T>, attention_backward<T>,
                                         attention_scratch<T>, dropout_factors<T>};
  return table;
}
template const AttentionKernels<float>& attention_table<float>();
template const AttentionKernels<bfloat16>& attention_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
