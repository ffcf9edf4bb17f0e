// The sums of a few outputs for a few rows, in the order of gemv: shared by products whose weights
// are not float32. V is a level's vector type; all is private to the level's file.
#pragma once

#include <cstdint>

namespace omnima::kernels {
namespace {

// One accumulator each, and the lanes of gemv. A product g has x, x_stride, bias, y and y_stride.
template <class V, int O, int R>
struct Sums {
  typename V::Type at[O][R];
  Sums() {
    for (auto& output : at) {
      for (auto& sum : output) sum = V::zero();
    }
  }
  void add(int output, typename V::Type weights, const typename V::Type (&x)[R]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) at[output][r] = V::multiply_add(weights, x[r], at[output][r]);
  }
  template <class G>
  void add(int output, typename V::Type weights, const G& g, std::int64_t k) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      at[output][r] = V::multiply_add(weights, V::load(g.x + r * g.x_stride + k), at[output][r]);
    }
  }
  template <class G>
  void add_part(int output, typename V::Type weights, const G& g, std::int64_t k, int count) {
    for (int r = 0; r < R; ++r) {
      const auto x = V::load_part(g.x + r * g.x_stride + k, count);
      at[output][r] = V::multiply_add(weights, x, at[output][r]);
    }
  }
  template <class G>
  void write(const G& g, std::int64_t o) const {
#pragma GCC unroll 8
    for (int i = 0; i < O; ++i) {
      const float bias = g.bias ? g.bias[o + i] : 0.0f;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) g.y[r * g.y_stride + o + i] = V::sum(at[i][r]) + bias;
    }
  }
};

}  // namespace
}  // namespace omnima::kernels
