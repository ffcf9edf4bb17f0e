// The optimizer's pass and the sum of squares at every level against plain arithmetic in double.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/adamw.h"

namespace omnima::kernels {
namespace {

AdamwConstants constants_of(int step) {
  AdamwConstants c{1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0, 0, 0.7f};
  c.correction1 = static_cast<float>(1 - std::pow(0.9, step));
  c.correction2 = static_cast<float>(std::sqrt(1 - std::pow(0.95, step)));
  return c;
}

struct Plain {
  std::vector<double> w, m, v;

  void step(const std::vector<float>& grad, const AdamwConstants& c) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = double{grad[i]} * c.grad_scale;
      m[i] = c.beta1 * m[i] + (1 - double{c.beta1}) * g;
      v[i] = c.beta2 * v[i] + (1 - double{c.beta2}) * g * g;
      w[i] -= c.lr * c.weight_decay * w[i];
      w[i] -= c.lr * (m[i] / c.correction1) / (std::sqrt(v[i]) / c.correction2 + c.eps);
    }
  }
};

TEST(AdamwLevels, FiveStepsEqualPlainArithmetic) {
  auto sizes = odd_sizes();
  sizes.push_back(0);
  for (const std::int64_t count : sizes) {
    const auto start = draw(count, 1);
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << count);
      const std::int64_t offset = count % 9;
      Plain plain{
          {start.begin(), start.end()}, std::vector<double>(count), std::vector<double>(count)};
      Guarded<float> w(start, offset), m(count, offset), v(count, offset);
      Guarded<bfloat16> shadow(count, offset);
      for (int step = 1; step <= 5; ++step) {
        const auto grad = draw(count, 10 + step, 0.1f);
        Guarded<float> g(grad, offset);
        optimizer_kernels(level).adamw(w.data(), g.data(), m.data(), v.data(),
                                       step % 2 ? shadow.data() : nullptr, count,
                                       constants_of(step));
        plain.step(grad, constants_of(step));
      }
      for (std::int64_t i = 0; i < count; ++i) {
        ASSERT_NEAR(w[i], plain.w[i], 2e-6 * (1 + std::abs(plain.w[i])));
        ASSERT_NEAR(m[i], plain.m[i], 1e-6 * (1e-2 + std::abs(plain.m[i])));
        ASSERT_NEAR(v[i], plain.v[i], 1e-6 * (1e-4 + std::abs(plain.v[i])));
        ASSERT_NEAR(shadow[i], w[i], std::abs(w[i]) / 256);
      }
    }
  }
}

TEST(AdamwLevels, WhatIsNotFiniteStaysInItsPlace) {
  for (const Level level : levels()) {
    for (const float bad : {kNan, kInf, -kInf}) {
      for (const std::size_t place : {0u, 17u, 36u}) {
        auto grad = draw(37, 1), w = draw(37, 2);
        grad[place] = bad;
        std::vector<float> m(37), v(37);
        std::vector<bfloat16> shadow(37);
        optimizer_kernels(level).adamw(w.data(), grad.data(), m.data(), v.data(), shadow.data(), 37,
                                       constants_of(1));
        for (std::size_t i = 0; i < 37; ++i) {
          EXPECT_EQ(std::isfinite(w[i]), i != place) << level_name(level) << " " << bad;
          EXPECT_EQ(std::isfinite(widened(shadow[i])), i != place) << level_name(level);
        }
      }
    }
  }
}

// A learning rate of zero leaves the weights alone and rounds them.
TEST(AdamwLevels, TheCopyInBfloat16RoundsToNearestEvenAndKeepsNan) {
  const std::vector<float> x = {1.0f, 1.00390625f, 1.01171875f, -0.0f, kInf, kNan, 3.4e38f};
  const auto count = static_cast<std::int64_t>(x.size());
  for (const Level level : levels()) {
    std::vector<float> weight = x, zeros(x.size()), m(x.size()), v(x.size());
    std::vector<bfloat16> y(x.size());
    const AdamwConstants still{0.0f, 0.9f, 0.95f, 1e-8f, 0.0f, 0.1f, 0.2f, 1.0f};
    optimizer_kernels(level).adamw(weight.data(), zeros.data(), m.data(), v.data(), y.data(), count,
                                   still);
    EXPECT_EQ(y[0].bits, 0x3f80);
    EXPECT_EQ(y[1].bits, 0x3f80);  // halfway, to the even neighbour
    EXPECT_EQ(y[2].bits, 0x3f82);
    EXPECT_EQ(y[3].bits, 0x8000);
    EXPECT_EQ(y[4].bits, 0x7f80);
    EXPECT_TRUE(std::isnan(widened(y[5])));
    EXPECT_EQ(y[6].bits, 0x7f80);
  }
}

TEST(SumOfSquaresLevels, OddEmptyAndHugeRanges) {
  auto sizes = odd_sizes();
  sizes.insert(sizes.end(), {0, 4095, 4096, 4097, 8191, (1 << 20) + 7});
  for (const std::int64_t count : sizes) {
    const auto x = draw(count, 3);
    double expected = 0;
    for (const float v : x) expected += double{v} * v;
    for (const Level level : levels()) {
      Guarded<float> memory(x, count % 5);
      EXPECT_NEAR(optimizer_kernels(level).sum_of_squares(memory.data(), count), expected,
                  1e-5 * expected)
          << level_name(level) << " " << count;
    }
  }
}

TEST(SumOfSquaresLevels, NanAndInfinityAreSeenWhereverTheyStand) {
  for (const Level level : levels()) {
    for (const float bad : {kNan, kInf, -kInf}) {
      for (const std::size_t place : {0u, 31u, 4095u, 4096u, 5002u}) {
        std::vector<float> x(5003, 1.0f);
        x[place] = bad;
        const double sum = optimizer_kernels(level).sum_of_squares(x.data(), 5003);
        EXPECT_EQ(std::isnan(sum), std::isnan(bad)) << level_name(level) << " " << place;
        EXPECT_FALSE(std::isfinite(sum)) << level_name(level) << " " << place;
      }
    }
  }
}

}  // namespace
}  // namespace omnima::kernels
