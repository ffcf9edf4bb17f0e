// Matrix products at every level, in both number formats, against plain sums in double: odd shapes,
// all layouts and targets, memory of exactly the size that the kernels ask for.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "levels.h"
#include "omnima/kernels/cpu/gemm.h"

namespace omnima::kernels {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Bytes = std::unique_ptr<char, Free>;
constexpr std::int64_t kSpare = 64;  // packing may write so many bytes behind its end

Bytes bytes(std::int64_t count) {
  const std::int64_t whole = (count + kSpare + 63) / 64 * 64;
  return Bytes(static_cast<char*>(std::aligned_alloc(64, static_cast<std::size_t>(whole))));
}

// A matrix whose rows or columns lie `gap` numbers further apart than they are long.
template <class T>
struct Matrix {
  Matrix(std::int64_t rows, std::int64_t cols, bool by_columns, std::int64_t gap, unsigned seed)
      : stride((by_columns ? rows : cols) + gap),
        across(by_columns),
        values(draw<T>(((across ? cols : rows) - 1) * stride + (across ? rows : cols), seed)) {}

  MatrixView<T> view() const { return {values.data(), across ? 1 : stride, across ? stride : 1}; }
  T& at(std::int64_t i, std::int64_t j) { return values[across ? j * stride + i : i * stride + j]; }
  double wide(std::int64_t i, std::int64_t j) const {
    return widened(values[across ? j * stride + i : i * stride + j]);
  }

  std::int64_t stride;
  bool across;
  std::vector<T> values;  // not one number more than the matrix reaches
};

struct Shape {
  std::int64_t m, n, k;
};

// All strips times all panels; strips are rows of A themselves where asked and possible.
template <class T>
void multiply(const GemmKernels<T>& kernels, const Matrix<T>& a, const Matrix<T>& b, Shape s,
              const GemmTarget<T>& target, bool in_place = false) {
  const std::int64_t rows = kernels.strip_rows, strips = (s.m + rows - 1) / rows;
  const std::int64_t panels = (s.n + kernels.panel_cols - 1) / kernels.panel_cols;
  const Bytes left = bytes(strips * kernels.strip_bytes(s.k));
  const Bytes right = bytes(panels * kernels.panel_bytes(s.k));
  kernels.pack_left(a.view(), s.m, s.k, left.get());
  kernels.pack_right(b.view(), s.k, s.n, right.get());
  for (std::int64_t i = 0; i < s.m; i += rows) {
    const std::int64_t count = std::min(rows, s.m - i);
    GemmStrip strip = kernels.packed_strip(left.get() + i / rows * kernels.strip_bytes(s.k), count);
    if (in_place) strip = kernels.strip_in_place(a.view().from(i, 0), count);
    kernels.multiply(strip, right.get(), s.n, s.k, target.from(i, 0));
  }
}

template <class T>
class GemmLevels : public testing::Test {
 protected:
  void check(Shape s, bool a_across, bool b_across, std::int64_t gap) {
    const Matrix<T> a(s.m, s.k, a_across, gap, 1), b(s.k, s.n, b_across, gap, 2);
    std::vector<double> exact(s.m * s.n);
    for (std::int64_t i = 0; i < s.m * s.n; ++i) {
      for (std::int64_t k = 0; k < s.k; ++k) exact[i] += a.wide(i / s.n, k) * b.wide(k, i % s.n);
    }
    const double size = 2 * std::sqrt(double(s.k)) + 1;
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message()
                   << level_name(level) << " " << s.m << " x " << s.k << " x " << s.n
                   << (a_across ? ", A by columns" : "") << (b_across ? ", B by columns" : ""));
      const auto& kernels = gemm_kernels<T>(level);
      const bool rows_as_they_are = kernels.reads_rows && !a_across && s.k % kernels.group == 0;
      for (const bool in_place : {false, true}) {
        if (in_place && !rows_as_they_are) continue;
        Guarded<T> stored(s.m * s.n);
        Guarded<float> sum(std::vector<float>(s.m * s.n, 2.0f)),
            added(std::vector<float>(s.m * s.n, 2.0f));
        multiply<T>(kernels, a, b, s, {stored.data(), nullptr, false, s.n}, in_place);
        multiply<T>(kernels, a, b, s, {nullptr, sum.data(), false, s.n}, in_place);
        multiply<T>(kernels, a, b, s, {nullptr, added.data(), true, s.n}, in_place);
        for (std::int64_t i = 0; i < s.m * s.n; ++i) {
          ASSERT_NEAR(stored[i], exact[i], allowed<T>(exact[i], size)) << i;
          ASSERT_NEAR(sum[i], exact[i], allowed<float>(exact[i], size)) << i;
          ASSERT_NEAR(added[i], exact[i] + 2, allowed<float>(exact[i], size)) << i;
        }
      }
    }
  }
};

using Formats = testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(GemmLevels, Formats);

TYPED_TEST(GemmLevels, OddShapesInEveryLayoutEqualPlainSums) {
  const std::vector<Shape> shapes = {
      {1, 1, 1},    {1, 33, 2},  {2, 16, 3},   {5, 7, 31},   {6, 8, 16},   {7, 17, 33},
      {12, 32, 64}, {13, 31, 1}, {25, 65, 37}, {48, 64, 32}, {65, 96, 64}, {31, 70, 129},
      {97, 3, 101}, {3, 131, 5}, {24, 96, 16}, {36, 48, 47}, {11, 1, 257}};
  for (const Shape& shape : shapes) {
    for (const bool a_across : {false, true}) {
      for (const bool b_across : {false, true}) {
        for (const std::int64_t gap : {0, 3, 40}) this->check(shape, a_across, b_across, gap);
      }
    }
  }
}

TYPED_TEST(GemmLevels, LongSums) { this->check({13, 35, 4099}, false, false, 0); }

TYPED_TEST(GemmLevels, SumsOfAnyLengthAreRounded) {
  for (const Level level : levels()) {
    for (const std::int64_t count : odd_sizes()) {
      const auto sums = draw(count, 4);
      Guarded<TypeParam> out(count, 1);
      gemm_kernels<TypeParam>(level).convert(sums.data(), count, out.data());
      for (std::int64_t i = 0; i < count; ++i) {
        ASSERT_NEAR(out[i], sums[i], allowed<TypeParam>(sums[i])) << level_name(level);
      }
    }
  }
}

TYPED_TEST(GemmLevels, WhatIsNotFiniteReachesItsRowOrColumnAndNoOther) {
  constexpr Shape kShape{13, 35, 19};
  for (const Level level : levels()) {
    const auto& kernels = gemm_kernels<TypeParam>(level);
    for (const float bad : {kNan, kInf}) {
      for (const bool across : {false, true}) {
        for (const bool left : {false, true}) {
          Matrix<TypeParam> a(kShape.m, kShape.k, across, 0, 6),
              b(kShape.k, kShape.n, across, 0, 7);
          if (left) {
            a.at(12, 18) = as<TypeParam>(bad);
          } else {
            b.at(18, 34) = as<TypeParam>(bad);
          }
          Guarded<TypeParam> c(kShape.m * kShape.n);
          multiply<TypeParam>(kernels, a, b, kShape, {c.data(), nullptr, false, kShape.n});
          for (std::int64_t i = 0; i < kShape.m * kShape.n; ++i) {
            const bool hit = left ? i / kShape.n == 12 : i % kShape.n == 34;
            ASSERT_EQ(std::isfinite(c[i]), !hit) << level_name(level) << " " << bad << " at " << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace omnima::kernels
