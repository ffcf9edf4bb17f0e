// The norms at every level, in both number formats, against plain loops in double.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/norm.h"

namespace omnima::kernels {
namespace {

constexpr float kEps = 1e-5f;
constexpr float kBefore = 0.25f;  // what the weights' gradients hold before the kernel adds to them

using Doubles = std::vector<double>;

struct Expected {
  Doubles y, dx, dweight, dbias;
};

// Both norms: rms is the layer norm whose mean is taken as zero.
template <class T>
Expected plain_norm(const std::vector<T>& x, const std::vector<float>& weight,
                    const std::vector<float>& bias, const std::vector<T>& dy, std::int64_t rows,
                    std::int64_t cols, bool rms) {
  Expected out{Doubles(x.size()), Doubles(x.size()), Doubles(cols, kBefore),
               Doubles(cols, kBefore)};
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t at = row * cols;
    double mean = 0, squares = 0, sum_h = 0, sum_hn = 0;
    for (std::int64_t i = 0; i < cols && !rms; ++i) mean += widened(x[at + i]) / double(cols);
    for (std::int64_t i = 0; i < cols; ++i) squares += std::pow(widened(x[at + i]) - mean, 2);
    const double scale = 1 / std::sqrt(squares / double(cols) + kEps);
    const auto n = [&](std::int64_t i) { return (widened(x[at + i]) - mean) * scale; };
    const auto h = [&](std::int64_t i) { return double{widened(dy[at + i])} * weight[i]; };
    for (std::int64_t i = 0; i < cols; ++i) sum_h += rms ? 0 : h(i), sum_hn += h(i) * n(i);
    for (std::int64_t i = 0; i < cols; ++i) {
      out.y[at + i] = n(i) * weight[i] + (bias.empty() ? 0 : bias[i]);
      out.dx[at + i] = scale * (h(i) - sum_h / double(cols) - n(i) * sum_hn / double(cols));
      out.dweight[i] += widened(dy[at + i]) * n(i);
      out.dbias[i] += widened(dy[at + i]);
    }
  }
  return out;
}

template <class T>
class NormLevels : public testing::Test {
 protected:
  void check(std::int64_t rows, std::int64_t cols, std::int64_t offset, bool with_bias) {
    SCOPED_TRACE(testing::Message() << rows << " rows of " << cols << ", offset " << offset);
    const auto x = draw<T>(rows * cols, 1, 2.0f), dy = draw<T>(rows * cols, 2);
    const auto w = draw(cols, 3), b = with_bias ? draw(cols, 4) : std::vector<float>();
    const auto rms = plain_norm<T>(x, w, {}, dy, rows, cols, true);
    const auto layer = plain_norm<T>(x, w, b, dy, rows, cols, false);
    const NormShape shape{rows, cols, kEps};
    for (const Level level : levels()) {
      SCOPED_TRACE(level_name(level));
      const auto& kernels = norm_kernels<T>(level);
      Guarded<T> in(x, offset), out_gradient(dy, offset), y(rows * cols, offset),
          dx(rows * cols, offset);
      Guarded<float> weight(w, offset), bias(b, offset), mean(rows, offset), rstd(rows, offset);
      const std::vector<float> before(cols, kBefore);
      {
        Guarded<float> dweight(before, offset);
        kernels.rms_forward(in.data(), weight.data(), y.data(), rstd.data(), shape);
        kernels.rms_backward(in.data(), weight.data(), rstd.data(), out_gradient.data(), dx.data(),
                             dweight.data(), shape);
        compare(rms, y, dx, dweight, nullptr, rows, cols);
      }
      Guarded<float> dweight(before, offset), dbias(before, offset);
      kernels.layer_forward(in.data(), weight.data(), with_bias ? bias.data() : nullptr, y.data(),
                            mean.data(), rstd.data(), shape);
      kernels.layer_backward(in.data(), weight.data(), mean.data(), rstd.data(),
                             out_gradient.data(), dx.data(), dweight.data(),
                             with_bias ? dbias.data() : nullptr, shape);
      // A row of one or two is its own mean: its gradient is a difference of equals.
      if (cols > 2) compare(layer, y, dx, dweight, with_bias ? &dbias : nullptr, rows, cols);
    }
  }

  void compare(const Expected& expected, const Guarded<T>& y, const Guarded<T>& dx,
               const Guarded<float>& dweight, const Guarded<float>* dbias, std::int64_t rows,
               std::int64_t cols) {
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      ASSERT_NEAR(y[i], expected.y[i], allowed<T>(expected.y[i], 4) + 1e-9 * double(cols))
          << "y " << i;
      ASSERT_NEAR(dx[i], expected.dx[i], allowed<T>(expected.dx[i], 12) + 1e-9 * double(cols))
          << "dx " << i;
    }
    // The sum over a long row of floats is off by some of its last digits.
    const double near = 1e-5 * (4 + double(rows)) + 1e-9 * double(cols);
    for (std::int64_t i = 0; i < cols; ++i) {
      ASSERT_NEAR(dweight[i], expected.dweight[i], near * (1 + std::abs(expected.dweight[i])))
          << "dweight " << i;
      if (dbias != nullptr) {
        ASSERT_NEAR((*dbias)[i], expected.dbias[i], near) << "dbias " << i;
      }
    }
  }
};

using Formats = testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(NormLevels, Formats);

TYPED_TEST(NormLevels, OddRowsEqualPlainArithmetic) {
  for (const std::int64_t cols : odd_sizes()) this->check(3, cols, cols % 5, cols % 2 == 1);
}

TYPED_TEST(NormLevels, NoRowsOneRowManyRowsAndAHugeOne) {
  this->check(0, 7, 0, true);
  this->check(1, 64, 1, true);
  this->check(101, 13, 3, false);
  this->check(1, (1 << 17) + 5, 1, true);
}

TYPED_TEST(NormLevels, SumsOfAnyLength) {
  for (const std::int64_t count : odd_sizes()) {
    const auto a = draw<TypeParam>(count, 1), b = draw<TypeParam>(count, 2);
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << count);
      Guarded<TypeParam> left(a, count % 3), right(b, 1), sum(count, 2);
      norm_kernels<TypeParam>(level).add(left.data(), right.data(), sum.data(), count);
      norm_kernels<TypeParam>(level).add(left.data(), right.data(), left.data(), count);
      for (std::int64_t i = 0; i < count; ++i) {
        const double exact = double{widened(a[i])} + widened(b[i]);
        ASSERT_NEAR(sum[i], exact, allowed<TypeParam>(exact, 1)) << i;
        ASSERT_EQ(left[i], sum[i]) << i;
      }
    }
  }
}

TYPED_TEST(NormLevels, WhatIsNotFiniteSpoilsItsRowAndNoOther) {
  constexpr std::int64_t kCols = 37;
  for (const Level level : levels()) {
    for (const float bad : {kNan, kInf, -kInf}) {
      for (const std::int64_t place : {0, 20, 36}) {
        SCOPED_TRACE(testing::Message() << level_name(level) << " " << bad << " at " << place);
        auto x = draw<TypeParam>(3 * kCols, 5);
        x[kCols + place] = as<TypeParam>(bad);
        const auto w = draw(kCols, 6), b = draw(kCols, 7);
        std::vector<TypeParam> y(x.size()), z(x.size()), dx(x.size());
        std::vector<float> mean(3), rstd(3), dw(kCols), db(kCols);
        const NormShape shape{3, kCols, kEps};
        const auto& kernels = norm_kernels<TypeParam>(level);
        kernels.rms_forward(x.data(), w.data(), y.data(), rstd.data(), shape);
        kernels.rms_backward(x.data(), w.data(), rstd.data(), z.data(), dx.data(), dw.data(),
                             shape);
        kernels.layer_forward(x.data(), w.data(), b.data(), z.data(), mean.data(), rstd.data(),
                              shape);
        EXPECT_FALSE(std::isfinite(widened(y[kCols + place])));
        EXPECT_FALSE(std::isfinite(widened(z[kCols + place])));
        EXPECT_FALSE(std::isfinite(widened(dx[kCols + place])));
        EXPECT_FALSE(std::isfinite(dw[place]));
        for (std::int64_t i = 0; i < kCols; ++i) {
          for (const std::int64_t row : {std::int64_t{0}, 2 * kCols}) {
            EXPECT_TRUE(std::isfinite(widened(y[row + i])) && std::isfinite(widened(z[row + i])) &&
                        std::isfinite(widened(dx[row + i])));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace omnima::kernels
