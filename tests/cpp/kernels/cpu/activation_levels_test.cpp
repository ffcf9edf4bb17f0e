// The activations at every level, in both number formats, against plain arithmetic in double.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/activation.h"

namespace omnima::kernels {
namespace {

double silu(double v) { return v / (1 + std::exp(-v)); }
double silu_slope(double v) {
  const double s = 1 / (1 + std::exp(-v));
  return s * (1 + v * (1 - s));
}

double gelu(double v, bool by_tanh) {
  const double inner = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
  return by_tanh ? 0.5 * v * (1 + std::tanh(inner)) : 0.5 * v * std::erfc(-v / std::sqrt(2.0));
}
double gelu_slope(double v, bool by_tanh) {
  if (!by_tanh) {
    return 0.5 * std::erfc(-v / std::sqrt(2.0)) + v * std::exp(-0.5 * v * v) / std::sqrt(2 * M_PI);
  }
  const double t = std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v));
  const double inner = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * v * v);
  return 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * inner;
}

template <class T>
class ActivationLevels : public testing::Test {
 protected:
  // gate_up [rows, 2 * width], dy [rows, width].
  void check_swiglu(const std::vector<T>& gate_up, const std::vector<T>& dy, std::int64_t rows,
                    std::int64_t width, std::int64_t offset) {
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << rows << " x " << width);
      const auto& kernels = activation_kernels<T>(level);
      Guarded<T> in(gate_up, offset), out_gradient(dy, offset), y(rows * width, offset);
      kernels.swiglu_forward(in.data(), y.data(), rows, width);
      // The gradient may take the place of what it is the gradient of.
      kernels.swiglu_backward(in.data(), out_gradient.data(), in.data(), rows, width);
      if constexpr (std::is_same_v<T, float>) {
        Guarded<bfloat16> rounded(width, offset);
        kernels.swiglu_rounded(gate_up.data(), rounded.data(), rows > 0 ? width : 0);
        for (std::int64_t i = 0; i < (rows > 0 ? width : 0); ++i) {
          const double expected = silu(gate_up[i]) * gate_up[width + i];
          ASSERT_NEAR(rounded[i], expected, allowed<bfloat16>(expected)) << gate_up[i];
        }
      }
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t i = 0; i < width; ++i) {
          const std::int64_t at = row * width + i, left = 2 * row * width + i, right = left + width;
          const double g = widened(gate_up[left]), u = widened(gate_up[right]);
          const double d = widened(dy[at]), dg = d * u * silu_slope(g), du = d * silu(g);
          ASSERT_NEAR(y[at], silu(g) * u, allowed<T>(silu(g) * u)) << g << " " << u;
          ASSERT_NEAR(in[left], dg, allowed<T>(dg)) << g << " " << u;
          ASSERT_NEAR(in[right], du, allowed<T>(du)) << g << " " << u;
        }
      }
    }
  }

  void check_gelu(const std::vector<T>& x, const std::vector<T>& dy, std::int64_t offset) {
    const auto count = static_cast<std::int64_t>(x.size());
    for (const Level level : levels()) {
      for (const bool by_tanh : {false, true}) {
        SCOPED_TRACE(testing::Message() << level_name(level) << " " << count << " " << by_tanh);
        const auto& kernels = activation_kernels<T>(level);
        Guarded<T> in(x, offset), out_gradient(dy, offset), y(count, offset), dx(count, offset);
        kernels.gelu_forward(in.data(), y.data(), count, by_tanh);
        kernels.gelu_backward(in.data(), out_gradient.data(), dx.data(), count, by_tanh);
        for (std::int64_t i = 0; i < count; ++i) {
          const double v = widened(x[i]), expected = gelu(v, by_tanh);
          const double slope = widened(dy[i]) * gelu_slope(v, by_tanh);
          ASSERT_NEAR(y[i], expected, allowed<T>(expected)) << v;
          ASSERT_NEAR(dx[i], slope, allowed<T>(slope, 2)) << v;
        }
      }
    }
  }
};

using Formats = testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(ActivationLevels, Formats);

TYPED_TEST(ActivationLevels, OddSizesEqualPlainArithmetic) {
  for (const std::int64_t size : odd_sizes()) {
    const std::int64_t rows = size > 1000 ? 1 : 3;
    this->check_swiglu(draw<TypeParam>(2 * rows * size, 1, 3.0f), draw<TypeParam>(rows * size, 2),
                       rows, size, size % 7);
    this->check_gelu(draw<TypeParam>(size, 3, 3.0f), draw<TypeParam>(size, 4), size % 7);
  }
}

TYPED_TEST(ActivationLevels, NothingIsReadOrWrittenOfNothing) {
  this->check_swiglu({}, {}, 0, 16, 0);
  this->check_swiglu({}, {}, 3, 0, 1);
  this->check_gelu({}, {}, 1);
}

// Over the whole range in which a network lives, and beyond where the exponentials overflow.
TYPED_TEST(ActivationLevels, LargeAndSmallValues) {
  std::vector<float> x;
  for (double v = 1e-30; v < 2e4; v *= 1.3) {
    x.push_back(static_cast<float>(v));
    x.push_back(static_cast<float>(-v));
  }
  x.insert(x.end(), {0.0f, -0.0f, 87.0f, -87.0f, 88.8f, -88.8f, 104.0f, -104.0f});
  const auto count = static_cast<std::int64_t>(x.size());
  std::vector<float> gate_up = x;
  gate_up.insert(gate_up.end(), x.size(), 0.5f);
  const std::vector<TypeParam> ones(x.size(), as<TypeParam>(1.0f));
  this->check_swiglu(as<TypeParam>(gate_up), ones, 1, count, 0);
  this->check_gelu(as<TypeParam>(x), ones, 0);
}

TYPED_TEST(ActivationLevels, NanStaysAndInfinityIsNeverTakenForANumber) {
  for (const Level level : levels()) {
    const auto& kernels = activation_kernels<TypeParam>(level);
    for (const std::int64_t place : {0, 9, 18}) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " at " << place);
      auto x = draw<TypeParam>(38, 5), dy = draw<TypeParam>(19, 6);
      std::vector<TypeParam> y(19), dx(38);
      x[place] = as<TypeParam>(kNan);
      kernels.swiglu_forward(x.data(), y.data(), 1, 19);
      kernels.swiglu_backward(x.data(), dy.data(), dx.data(), 1, 19);
      for (std::int64_t i = 0; i < 19; ++i) {
        EXPECT_EQ(std::isnan(widened(y[i])), i == place);
        EXPECT_EQ(std::isnan(widened(dx[i])), i == place);
        EXPECT_EQ(std::isnan(widened(dx[19 + i])), i == place);
      }
      x[place] = as<TypeParam>(kInf);
      kernels.swiglu_forward(x.data(), y.data(), 1, 19);
      EXPECT_TRUE(std::isinf(widened(y[place])));
      for (const bool by_tanh : {false, true}) {
        kernels.gelu_forward(x.data(), y.data(), 19, by_tanh);
        EXPECT_EQ(widened(y[place]), kInf);
        x[place] = as<TypeParam>(kNan);
        kernels.gelu_forward(x.data(), y.data(), 19, by_tanh);
        kernels.gelu_backward(x.data(), dy.data(), dx.data(), 19, by_tanh);
        for (std::int64_t i = 0; i < 19; ++i) {
          EXPECT_EQ(std::isnan(widened(y[i])), i == place);
          EXPECT_EQ(std::isnan(widened(dx[i])), i == place);
        }
        x[place] = as<TypeParam>(kInf);
      }
    }
  }
}

}  // namespace
}  // namespace omnima::kernels
