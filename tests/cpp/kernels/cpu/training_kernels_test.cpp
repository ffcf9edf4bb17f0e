// Every instruction-set level of the training kernels against plain double arithmetic, over odd
// shapes.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/adamw.h"
#include "omnima/kernels/cpu/cross_entropy.h"
#include "omnima/kernels/cpu/norm.h"
#include "omnima/kernels/cpu/rotary.h"

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

TEST_P(TrainingKernels, RotaryTurnsAndTurnsBack) {
  const std::int64_t head_dim = 2 * cols();
  const auto x = draw(2 * head_dim, 10), angle = draw(cols(), 11);
  std::vector<float> cos(cols()), sin(cols());
  for (std::int64_t i = 0; i < cols(); ++i)
    cos[i] = std::cos(angle[i]), sin[i] = std::sin(angle[i]);
  for (const Level level : levels()) {
    auto y = x;
    rotary_kernels<float>(level).rotate(y.data(), 2, head_dim, cos.data(), sin.data(), 1.0f);
    EXPECT_NEAR(y[0], x[0] * cos[0] - x[cols()] * sin[0], 1e-6);
    EXPECT_NEAR(y[cols()], x[cols()] * cos[0] + x[0] * sin[0], 1e-6);
    rotary_kernels<float>(level).rotate(y.data(), 2, head_dim, cos.data(), sin.data(), -1.0f);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], 1e-5) << level_name(level);
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

INSTANTIATE_TEST_SUITE_P(OddSizes, TrainingKernels,
                         ::testing::Values(1, 2, 7, 16, 31, 64, 97, 257, 5003));

TEST(TrainingKernelsBfloat16, RoundsToNearestEvenAndKeepsNan) {
  const std::vector<float> x = {1.0f, 1.00390625f, 1.01171875f, -0.0f, INFINITY, NAN, 3.4e38f};
  for (const Level level : levels()) {
    std::vector<bfloat16> y(x.size());
    optimizer_kernels(level).to_bfloat16(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
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
