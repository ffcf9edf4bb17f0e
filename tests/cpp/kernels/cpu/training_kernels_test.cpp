// Every instruction-set level of the training kernels against plain double arithmetic, over odd
// shapes.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/adamw.h"
#include "omnima/kernels/cpu/cross_entropy.h"
#include "omnima/kernels/cpu/norm.h"

namespace omnima::kernels {
namespace {

std::vector<Level> levels() {
  std::vector<Level> all;
  for (const Level level : {Level::kGeneric, Level::kAvx2, Level::kAvx512}) {
    if (level <= detected_level()) all.push_back(level);
  }
  return all;
}

std::vector<float> draw(std::size_t count, unsigned seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

class TrainingKernels : public ::testing::TestWithParam<std::int64_t> {
 protected:
  std::int64_t cols() const { return GetParam(); }
};

TEST_P(TrainingKernels, RmsNormEqualsItsFormula) {
  const auto x = draw(3 * cols(), 1), w = draw(cols(), 2), dy = draw(3 * cols(), 3);
  for (const Level level : levels()) {
    std::vector<float> y(x.size()), rstd(3), dx(x.size()), dw(cols());
    const auto& kernels = norm_kernels<float>(level);
    kernels.rms_forward(x.data(), w.data(), y.data(), rstd.data(), {3, cols(), 1e-5f});
    kernels.rms_backward(x.data(), w.data(), rstd.data(), dy.data(), dx.data(), dw.data(),
                         {3, cols(), 1e-5f});
    for (std::int64_t row = 0; row < 3; ++row) {
      double squares = 0, dot = 0;
      const std::int64_t at = row * cols();
      for (std::int64_t i = 0; i < cols(); ++i) squares += double(x[at + i]) * x[at + i];
      const double scale = 1 / std::sqrt(squares / cols() + 1e-5);
      for (std::int64_t i = 0; i < cols(); ++i)
        dot += double(dy[at + i]) * w[i] * x[at + i] * scale;
      for (std::int64_t i = 0; i < cols(); ++i) {
        EXPECT_NEAR(y[at + i], x[at + i] * scale * w[i], 1e-5) << level_name(level);
        const double dxi = scale * (dy[at + i] * w[i] - x[at + i] * scale * dot / cols());
        EXPECT_NEAR(dx[at + i], dxi, 2e-5) << level_name(level);
      }
    }
  }
}

TEST_P(TrainingKernels, LayerNormEqualsItsFormula) {
  const auto x = draw(2 * cols(), 4), w = draw(cols(), 5), b = draw(cols(), 6);
  for (const Level level : levels()) {
    std::vector<float> y(x.size()), plain(x.size()), mean(2), rstd(2);
    const auto& kernels = norm_kernels<float>(level);
    const NormShape shape{2, cols(), 1e-5f};
    kernels.layer_forward(x.data(), w.data(), b.data(), y.data(), mean.data(), rstd.data(), shape);
    kernels.layer_forward(x.data(), w.data(), nullptr, plain.data(), mean.data(), rstd.data(),
                          shape);
    for (std::int64_t row = 0; row < 2; ++row) {
      const std::int64_t at = row * cols();
      double centre = 0, squares = 0;
      for (std::int64_t i = 0; i < cols(); ++i) centre += x[at + i] / double(cols());
      for (std::int64_t i = 0; i < cols(); ++i) squares += std::pow(x[at + i] - centre, 2);
      for (std::int64_t i = 0; i < cols(); ++i) {
        const double n = (x[at + i] - centre) / std::sqrt(squares / cols() + 1e-5);
        EXPECT_NEAR(y[at + i], n * w[i] + b[i], 2e-5) << level_name(level);
        EXPECT_NEAR(plain[at + i], n * w[i], 2e-5) << level_name(level);
      }
    }
  }
}

TEST_P(TrainingKernels, ActivationsAndTheirSlopes) {
  const auto x = draw(2 * cols(), 7, 3.0f), dy = draw(cols(), 8);
  const auto silu = [](double v) { return v / (1 + std::exp(-v)); };
  const auto gelu = [](double v, bool by_tanh) {
    const double inner = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
    return by_tanh ? 0.5 * v * (1 + std::tanh(inner))
                   : 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
  };
  const auto slope = [](auto f, double v) { return (f(v + 1e-5) - f(v - 1e-5)) / 2e-5; };
  for (const Level level : levels()) {
    const auto& kernels = activation_kernels<float>(level);
    std::vector<float> y(cols()), dx(2 * cols());
    kernels.swiglu_forward(x.data(), y.data(), 1, cols());
    kernels.swiglu_backward(x.data(), dy.data(), dx.data(), 1, cols());
    for (std::int64_t i = 0; i < cols(); ++i) {
      const double gate = x[i], up = x[cols() + i];
      EXPECT_NEAR(y[i], silu(gate) * up, 2e-5) << level_name(level);
      EXPECT_NEAR(dx[i], dy[i] * up * slope(silu, gate), 1e-4) << level_name(level);
      EXPECT_NEAR(dx[cols() + i], dy[i] * silu(gate), 2e-5) << level_name(level);
    }
    for (const bool by_tanh : {false, true}) {
      kernels.gelu_forward(x.data(), y.data(), cols(), by_tanh);
      kernels.gelu_backward(x.data(), dy.data(), dx.data(), cols(), by_tanh);
      for (std::int64_t i = 0; i < cols(); ++i) {
        EXPECT_NEAR(y[i], gelu(x[i], by_tanh), 5e-6) << level_name(level);
        const double expected = dy[i] * slope([&](double v) { return gelu(v, by_tanh); }, x[i]);
        EXPECT_NEAR(dx[i], expected, 2e-5) << level_name(level);
      }
    }
  }
}

TEST_P(TrainingKernels, CrossEntropyAndItsGradient) {
  const auto logits = draw(cols(), 9, 4.0f);
  const std::int64_t label = cols() / 2;
  double sum = 0;
  for (const float v : logits) sum += std::exp(double(v));
  for (const Level level : levels()) {
    const auto& kernels = cross_entropy_kernels<float>(level);
    std::vector<float> work = logits, scratch(cols());
    const double expected = std::log(sum) - logits[label];
    EXPECT_NEAR(kernels.loss(work.data(), cols(), label), expected, 1e-5 + 1e-6 * expected);
    const float loss = kernels.loss_and_gradient(work.data(), cols(), label, 0.5f, scratch.data());
    EXPECT_NEAR(loss, expected, 1e-5 + 1e-6 * expected) << level_name(level);
    for (std::int64_t i = 0; i < cols(); ++i) {
      EXPECT_NEAR(work[i], 0.5 * (std::exp(double(logits[i])) / sum - (i == label)), 1e-5);
    }
  }
}

TEST_P(TrainingKernels, AdamwAndSums) {
  const auto w0 = draw(cols(), 12), g = draw(cols(), 13);
  const AdamwConstants c{0.1f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.1f, std::sqrt(0.05f), 0.5f};
  for (const Level level : levels()) {
    auto w = w0;
    std::vector<float> m(cols()), v(cols());
    std::vector<bfloat16> shadow(cols());
    const auto& kernels = optimizer_kernels(level);
    kernels.adamw(w.data(), g.data(), m.data(), v.data(), shadow.data(), cols(), c);
    double squares = 0;
    for (std::int64_t i = 0; i < cols(); ++i) {
      // The first step of Adam moves by lr against the gradient's sign.
      const double moved = w0[i] * (1 - 0.1 * 0.1) - 0.1 * (g[i] > 0 ? 1 : -1);
      EXPECT_NEAR(w[i], moved, 1e-4) << level_name(level);
      const float wide = std::bit_cast<float>(std::uint32_t{shadow[i].bits} << 16);
      EXPECT_NEAR(wide, w[i], std::abs(w[i]) / 256) << level_name(level);
      squares += double(g[i]) * g[i];
    }
    EXPECT_NEAR(kernels.sum_of_squares(g.data(), cols()), squares, 1e-5 * squares);
  }
}

// The same kernels in bfloat16: what the float32 kernel makes of the same values, rounded.
float widened(bfloat16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

std::vector<bfloat16> narrowed(const std::vector<float>& x) {
  std::vector<bfloat16> y;
  for (const float v : x) {
    y.push_back({static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(v) + 0x8000u) >> 16)});
  }
  return y;
}

std::vector<float> widened(const std::vector<bfloat16>& x) {
  std::vector<float> y;
  for (const bfloat16 v : x) y.push_back(widened(v));
  return y;
}

void expect_rounded(const std::vector<bfloat16>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_NEAR(widened(actual[i]), expected[i], std::abs(expected[i]) / 200 + 1e-5) << i;
  }
}

TEST_P(TrainingKernels, NormsInBfloat16EqualFloat32Rounded) {
  const auto x = narrowed(draw(3 * cols(), 20)), dy = narrowed(draw(3 * cols(), 21));
  const auto w = draw(cols(), 22), b = draw(cols(), 23);
  const auto wide_x = widened(x), wide_dy = widened(dy);
  const NormShape shape{3, cols(), 1e-5f};
  for (const Level level : levels()) {
    SCOPED_TRACE(level_name(level));
    const auto& narrow = norm_kernels<bfloat16>(level);
    const auto& wide = norm_kernels<float>(level);
    std::vector<bfloat16> y(x.size()), dx(x.size());
    std::vector<float> wide_y(x.size()), wide_dx(x.size()), mean(3), rstd(3);
    std::vector<float> dw(cols()), db(cols()), wide_dw(cols()), wide_db(cols());
    narrow.rms_forward(x.data(), w.data(), y.data(), rstd.data(), shape);
    wide.rms_forward(wide_x.data(), w.data(), wide_y.data(), rstd.data(), shape);
    expect_rounded(y, wide_y);
    narrow.rms_backward(x.data(), w.data(), rstd.data(), dy.data(), dx.data(), dw.data(), shape);
    wide.rms_backward(wide_x.data(), w.data(), rstd.data(), wide_dy.data(), wide_dx.data(),
                      wide_dw.data(), shape);
    expect_rounded(dx, wide_dx);
    narrow.layer_forward(x.data(), w.data(), b.data(), y.data(), mean.data(), rstd.data(), shape);
    wide.layer_forward(wide_x.data(), w.data(), b.data(), wide_y.data(), mean.data(), rstd.data(),
                       shape);
    expect_rounded(y, wide_y);
    narrow.layer_backward(x.data(), w.data(), mean.data(), rstd.data(), dy.data(), dx.data(),
                          dw.data(), db.data(), shape);
    wide.layer_backward(wide_x.data(), w.data(), mean.data(), rstd.data(), wide_dy.data(),
                        wide_dx.data(), wide_dw.data(), wide_db.data(), shape);
    expect_rounded(dx, wide_dx);
    for (std::int64_t i = 0; i < cols(); ++i) {
      EXPECT_NEAR(dw[i], wide_dw[i], 1e-4);
      EXPECT_NEAR(db[i], wide_db[i], 1e-4);
    }
  }
}

TEST_P(TrainingKernels, ActivationsInBfloat16EqualFloat32Rounded) {
  const auto x = narrowed(draw(2 * cols(), 24, 3.0f)), dy = narrowed(draw(cols(), 25));
  const auto wide_x = widened(x), wide_dy = widened(dy);
  for (const Level level : levels()) {
    SCOPED_TRACE(level_name(level));
    const auto& narrow = activation_kernels<bfloat16>(level);
    const auto& wide = activation_kernels<float>(level);
    std::vector<bfloat16> y(cols()), dx(2 * cols());
    std::vector<float> wide_y(cols()), wide_dx(2 * cols());
    narrow.swiglu_forward(x.data(), y.data(), 1, cols());
    wide.swiglu_forward(wide_x.data(), wide_y.data(), 1, cols());
    expect_rounded(y, wide_y);
    narrow.swiglu_backward(x.data(), dy.data(), dx.data(), 1, cols());
    wide.swiglu_backward(wide_x.data(), wide_dy.data(), wide_dx.data(), 1, cols());
    expect_rounded(dx, wide_dx);
    dx.resize(cols()), wide_dx.resize(cols());
    for (const bool by_tanh : {false, true}) {
      narrow.gelu_forward(x.data(), y.data(), cols(), by_tanh);
      wide.gelu_forward(wide_x.data(), wide_y.data(), cols(), by_tanh);
      expect_rounded(y, wide_y);
      narrow.gelu_backward(x.data(), dy.data(), dx.data(), cols(), by_tanh);
      wide.gelu_backward(wide_x.data(), wide_dy.data(), wide_dx.data(), cols(), by_tanh);
      expect_rounded(dx, wide_dx);
    }
  }
}

TEST_P(TrainingKernels, CrossEntropyInBfloat16EqualsFloat32Rounded) {
  const auto logits = narrowed(draw(cols(), 26, 4.0f));
  for (const Level level : levels()) {
    SCOPED_TRACE(level_name(level));
    const auto& narrow = cross_entropy_kernels<bfloat16>(level);
    auto work = logits;
    auto wide_work = widened(logits);
    std::vector<float> scratch(cols());
    const float expected = cross_entropy_kernels<float>(level).loss_and_gradient(
        wide_work.data(), cols(), 0, 0.5f, scratch.data());
    EXPECT_NEAR(narrow.loss(work.data(), cols(), 0), expected, 1e-5 + 1e-5 * std::abs(expected));
    EXPECT_NEAR(narrow.loss_and_gradient(work.data(), cols(), 0, 0.5f, scratch.data()), expected,
                1e-5 + 1e-5 * std::abs(expected));
    expect_rounded(work, wide_work);
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, TrainingKernels,
                         ::testing::Values(1, 2, 7, 16, 31, 64, 97, 257, 5003));

// A learning rate of zero leaves the weights alone and rounds them.
TEST(TrainingKernelsBfloat16, RoundsToNearestEvenAndKeepsNan) {
  const std::vector<float> x = {1.0f, 1.00390625f, 1.01171875f, -0.0f, INFINITY, NAN, 3.4e38f};
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
    EXPECT_TRUE(std::isnan(std::bit_cast<float>(std::uint32_t{y[5].bits} << 16)));
    EXPECT_EQ(y[6].bits, 0x7f80);
  }
}

TEST(TrainingKernelsBfloat16, CrossEntropyOfNanIsNotFinite) {
  for (const Level level : levels()) {
    std::vector<float> logits = {0.0f, NAN, 1.0f}, scratch(3);
    const auto& kernels = cross_entropy_kernels<float>(level);
    EXPECT_FALSE(std::isfinite(kernels.loss(logits.data(), 3, 0))) << level_name(level);
    EXPECT_FALSE(std::isfinite(kernels.loss_and_gradient(logits.data(), 3, 0, 1, scratch.data())));
  }
}

}  // namespace
}  // namespace omnima::kernels
