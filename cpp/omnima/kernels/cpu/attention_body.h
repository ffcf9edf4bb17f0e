// The body of attention_<level>.cpp: one source, compiled once for each instruction set.
#include <algorithm>

#include "omnima/kernels/cpu/attention.h"
#include "omnima/kernels/cpu/small_gemm.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

constexpr std::int64_t kTile = 64;  // queries of a tile, and keys of a panel

// The matrices of a task in float32, rows padded to a multiple of 16 with zeros.
struct Scratch {
  Scratch(std::int64_t time, std::int64_t head_dim, float* memory)
      : width((head_dim + 15) / 16 * 16), padded((time + kTile - 1) / kTile * kTile), at(memory) {
    for (float** matrix : {&keys, &keys_by_panel, &values, &values_by_panel, &dkeys, &dvalues}) {
      *matrix = take(padded * width);
    }
    for (float** tile : {&query, &dout, &result}) *tile = take(kTile * width);
    for (float** tile : {&scores, &dscores}) *tile = take(kTile * padded);
  }

  float* take(std::int64_t count) {
    float* taken = at;
    at += count;
    return taken;
  }

  std::int64_t width, padded;
  float* at;
  float *keys, *keys_by_panel, *values, *values_by_panel, *dkeys, *dvalues;
  float *query, *dout, *result;  // of a tile
  float *scores, *dscores;       // [tile, keys]
};

template <class T>
std::int64_t place(const AttentionTask<T>& task, std::int64_t token) {
  return task.places == nullptr ? token : task.places[token];
}

// A head's vector in float32, times factor and, where asked, turned by its position.
template <class T>
void load_row(const AttentionTask<T>& task, const T* from, std::int64_t token, bool turned,
              float factor, float* to, std::int64_t width) {
  const std::int64_t half = task.head_dim / 2;
  if (turned && task.cos != nullptr) {
    const float* cos = task.cos + place(task, token) * half;
    const float* sin = task.sin + place(task, token) * half;
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = to_float(from[i]) * factor, b = to_float(from[half + i]) * factor;
      to[i] = a * cos[i] - b * sin[i];
      to[half + i] = b * cos[i] + a * sin[i];
    }
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < task.head_dim; ++i) to[i] = to_float(from[i]) * factor;
  }
  for (std::int64_t i = task.head_dim; i < width; ++i) to[i] = 0;
}

// The gradient of load_row: turns back and writes.
template <class T>
void store_row(const AttentionTask<T>& task, const float* from, std::int64_t token, bool turned,
               float factor, T* to) {
  const std::int64_t half = task.head_dim / 2;
  if (turned && task.cos != nullptr) {
    const float* cos = task.cos + place(task, token) * half;
    const float* sin = task.sin + place(task, token) * half;
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = from[i] * factor, b = from[half + i] * factor;
      to[i] = from_float<T>(a * cos[i] + b * sin[i]);
      to[half + i] = from_float<T>(b * cos[i] - a * sin[i]);
    }
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < task.head_dim; ++i) to[i] = from_float<T>(from[i] * factor);
  }
}

// All keys or values of the task as rows [padded, width] and as panels [padded / 64][head_dim][64].
template <class T>
void load_matrix(const AttentionTask<T>& task, const T* from, bool turned, const Scratch& s,
                 float* rows, float* panels) {
  for (std::int64_t token = 0; token < s.padded; ++token) {
    float* row = rows + token * s.width;
    if (token < task.time) {
      load_row(task, from + token * task.stride, token, turned, 1.0f, row, s.width);
    } else {
      std::fill(row, row + s.width, 0.0f);
    }
  }
  if (panels == nullptr) return;
  for (std::int64_t first = 0; first < s.padded; first += kTile) {
    float* panel = panels + first * task.head_dim;
    for (std::int64_t i = 0; i < task.head_dim; ++i) {
      for (std::int64_t j = 0; j < kTile; ++j)
        panel[i * kTile + j] = rows[(first + j) * s.width + i];
    }
  }
}

// The keys that the queries of a tile may see, in whole panels: [first, last).
struct Window {
  std::int64_t queries, first, last;
};

template <class T>
Window window_of(const AttentionTask<T>& task, std::int64_t start) {
  Window window{std::min(kTile, task.time - start), start, 0};
  for (std::int64_t i = start; i < start + window.queries; ++i) {
    window.first = std::min(window.first, i - place(task, i));
  }
  window.first = window.first / kTile * kTile;
  window.last = (start + window.queries + kTile - 1) / kTile * kTile;
  return window;
}

// scores [queries, keys of the window] = left [queries, width] times a matrix given by panels.
inline void multiply_panels(const Window& window, std::int64_t head_dim, const float* left,
                            std::int64_t width, const float* panels, float* scores) {
  const std::int64_t keys = window.last - window.first;
  for (std::int64_t key = window.first; key < window.last; key += kTile) {
    small_gemm(window.queries, kTile, head_dim, {left, width, 1}, panels + key * head_dim, kTile,
               scores + key - window.first, keys, false);
  }
}

// Turns a row of scores into exp(score - top) between the document's start and the query, zero
// elsewhere; returns the sum.
inline float exponentials(float* row, std::int64_t begin, std::int64_t end, std::int64_t keys,
                          float top) {
  float sum = 0;
  for (std::int64_t j = 0; j < begin; ++j) row[j] = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = begin; j < end; ++j) {
    const float e = fast_exp(row[j] - top);
    row[j] = e;
    sum += e;
  }
  for (std::int64_t j = end; j < keys; ++j) row[j] = 0;
  return sum;
}

template <class T>
void attention_forward(const AttentionTask<T>& task, float* memory) {
  const Scratch s(task.time, task.head_dim, memory);
  load_matrix(task, task.k, true, s, s.keys, s.keys_by_panel);
  load_matrix(task, task.v, false, s, s.values, nullptr);
  for (std::int64_t head = 0; head < task.group; ++head) {
    for (std::int64_t start = 0; start < task.time; start += kTile) {
      const Window window = window_of(task, start);
      const std::int64_t keys = window.last - window.first;
      for (std::int64_t i = 0; i < window.queries; ++i) {
        load_row(task, task.q + (start + i) * task.stride + head * task.head_dim, start + i, true,
                 task.scale, s.query + i * s.width, s.width);
      }
      multiply_panels(window, task.head_dim, s.query, s.width, s.keys_by_panel, s.scores);
      float sums[kTile];
      for (std::int64_t i = 0; i < window.queries; ++i) {
        float* row = s.scores + i * keys;
        const std::int64_t token = start + i, end = token + 1 - window.first;
        const std::int64_t begin = token - place(task, token) - window.first;
        float top = row[begin];
#pragma omp simd reduction(max : top)
        for (std::int64_t j = begin; j < end; ++j) top = row[j] > top ? row[j] : top;
        sums[i] = exponentials(row, begin, end, keys, top);
        task.logsumexp[head * task.time + token] = top + std::log(sums[i]);
      }
      small_gemm(window.queries, s.width, keys, {s.scores, keys, 1},
                 s.values + window.first * s.width, s.width, s.result, s.width, false);
      for (std::int64_t i = 0; i < window.queries; ++i) {
        store_row(task, s.result + i * s.width, start + i, false, 1.0f / sums[i],
                  task.out + (start + i) * task.out_stride + head * task.head_dim);
      }
    }
  }
}

// dscores = p * (dout v^T - sum(dout * out)), with p made anew from the kept logsumexp (Dao 2023).
template <class T>
void score_gradients(const AttentionTask<T>& task, const T* dout, std::int64_t head,
                     std::int64_t start, const Window& window, const Scratch& s) {
  const std::int64_t keys = window.last - window.first;
  for (std::int64_t i = 0; i < window.queries; ++i) {
    const std::int64_t token = start + i, end = token + 1 - window.first;
    const std::int64_t begin = token - place(task, token) - window.first;
    const std::int64_t at = token * task.out_stride + head * task.head_dim;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t j = 0; j < task.head_dim; ++j) {
      dot += to_float(dout[at + j]) * to_float(task.out[at + j]);
    }
    float *row = s.scores + i * keys, *drow = s.dscores + i * keys;
    exponentials(row, begin, end, keys, task.logsumexp[head * task.time + token]);
#pragma omp simd
    for (std::int64_t j = 0; j < keys; ++j) drow[j] = row[j] * (drow[j] - dot);
  }
}

template <class T>
void attention_backward(const AttentionTask<T>& task, const AttentionGradients<T>& gradients,
                        float* memory) {
  const Scratch s(task.time, task.head_dim, memory);
  load_matrix(task, task.k, true, s, s.keys, s.keys_by_panel);
  load_matrix(task, task.v, false, s, s.values, s.values_by_panel);
  std::fill(s.dkeys, s.dkeys + s.padded * s.width, 0.0f);
  std::fill(s.dvalues, s.dvalues + s.padded * s.width, 0.0f);
  for (std::int64_t head = 0; head < task.group; ++head) {
    for (std::int64_t start = 0; start < task.time; start += kTile) {
      const Window window = window_of(task, start);
      const std::int64_t keys = window.last - window.first, shift = window.first * s.width;
      for (std::int64_t i = 0; i < window.queries; ++i) {
        const std::int64_t token = start + i, offset = head * task.head_dim;
        load_row(task, task.q + token * task.stride + offset, token, true, task.scale,
                 s.query + i * s.width, s.width);
        load_row(task, gradients.dout + token * task.out_stride + offset, token, false, 1.0f,
                 s.dout + i * s.width, s.width);
      }
      multiply_panels(window, task.head_dim, s.query, s.width, s.keys_by_panel, s.scores);
      multiply_panels(window, task.head_dim, s.dout, s.width, s.values_by_panel, s.dscores);
      score_gradients(task, gradients.dout, head, start, window, s);
      small_gemm(keys, s.width, window.queries, {s.scores, 1, keys}, s.dout, s.width,
                 s.dvalues + shift, s.width, true);
      small_gemm(keys, s.width, window.queries, {s.dscores, 1, keys}, s.query, s.width,
                 s.dkeys + shift, s.width, true);
      small_gemm(window.queries, s.width, keys, {s.dscores, keys, 1}, s.keys + shift, s.width,
                 s.result, s.width, false);
      for (std::int64_t i = 0; i < window.queries; ++i) {
        store_row(task, s.result + i * s.width, start + i, true, task.scale,
                  gradients.dq + (start + i) * task.stride + head * task.head_dim);
      }
    }
  }
  for (std::int64_t token = 0; token < task.time; ++token) {
    store_row(task, s.dkeys + token * s.width, token, true, 1.0f,
              gradients.dk + token * task.stride);
    store_row(task, s.dvalues + token * s.width, token, false, 1.0f,
              gradients.dv + token * task.stride);
  }
}

template <class T>
const AttentionKernels<T>& attention_table() {
  static const AttentionKernels<T> table{attention_forward<T>, attention_backward<T>};
  return table;
}
template const AttentionKernels<float>& attention_table<float>();
template const AttentionKernels<bfloat16>& attention_table<bfloat16>();

}  // namespace omnima::kernels::OMNIMA_LEVEL
