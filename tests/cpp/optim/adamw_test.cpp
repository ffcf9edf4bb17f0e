// AdamW over the arena against a plain loop in double, and the norm of a flat buffer.
#include "omnima/optim/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "omnima/core/error.h"
#include "omnima/optim/gradient.h"

namespace omnima::optim {
namespace {

constexpr int64_t kRows = 1300, kCols = 64, kVector = 77;  // more than one range of a thread

nn::Arena small_arena(bool matrix = true) {
  nn::Arena arena;
  if (matrix) arena.add({"matrix", {kRows, kCols}, 0.5});
  arena.add({"vector", {kVector}, 0.5});
  arena.build(1, at::kCPU);
  return arena;
}

void set_gradient(nn::Arena& arena, int64_t step) {
  auto* gradient = arena.gradients().data_ptr<float>();
  for (int64_t i = 0; i < arena.size(); ++i) {
    gradient[i] = std::sin(static_cast<float>(i % 997) + 2.0f * static_cast<float>(step));
  }
}

std::vector<double> values(const at::Tensor& x) {
  const float* at = x.const_data_ptr<float>();
  return {at, at + x.numel()};
}

// Loshchilov and Hutter 2019, algorithm 2, with the decay scaled by the learning rate.
struct PlainAdamw {
  std::vector<double> weights, m, v;

  void update(const nn::Arena& arena, const std::vector<double>& gradient,
              const OptimizerOptions& o, std::int64_t step, double lr, double grad_scale) {
    m.resize(weights.size());
    v.resize(weights.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double g = gradient[i] * grad_scale;
      const bool decays = static_cast<int64_t>(i) < arena.decayed();
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
      const double first = m[i] / (1 - std::pow(o.beta1, step));
      const double second = v[i] / (1 - std::pow(o.beta2, step));
      if (decays) weights[i] -= lr * o.weight_decay * weights[i];
      weights[i] -= lr * first / (std::sqrt(second) + o.eps);
    }
  }
};

double distance(const at::Tensor& actual, const std::vector<double>& expected) {
  const auto own = values(actual);
  double most = 0;
  for (std::size_t i = 0; i < own.size(); ++i)
    most = std::max(most, std::abs(own[i] - expected[i]));
  return most;
}

TEST(Adamw, EqualsThePlainLoopOverManySteps) {
  for (const bool reference : {false, true}) {
    if (reference) ::setenv("OMNIMA_REFERENCE", "1", 1);
    const OptimizerOptions options{0.9, 0.95, 1e-8, 0.3};
    nn::Arena arena = small_arena();
    Adamw optimizer(arena, options);
    PlainAdamw plain{values(arena.weights()), {}, {}};
    for (std::int64_t step = 1; step <= 6; ++step) {
      set_gradient(arena, step);
      const double lr = 0.01 * static_cast<double>(step), grad_scale = step % 2 == 0 ? 0.25 : 1.0;
      optimizer.update(step, lr, grad_scale, step % 3 == 0);
      plain.update(arena, values(arena.gradients()), options, step, lr, grad_scale);
    }
    ::unsetenv("OMNIMA_REFERENCE");
    EXPECT_LE(distance(arena.weights(), plain.weights), 2e-6) << reference;
    EXPECT_LE(distance(optimizer.exp_avg(), plain.m), 1e-6) << reference;
    EXPECT_LE(distance(optimizer.exp_avg_sq(), plain.v), 1e-6) << reference;
    EXPECT_TRUE(at::equal(arena.shadow(), arena.weights().to(at::kBFloat16))) << reference;
  }
}

TEST(Adamw, VectorsDoNotDecay) {
  for (const bool matrix : {true, false}) {  // also where there is no matrix at all
    nn::Arena arena = small_arena(matrix);
    Adamw optimizer(arena, {0.9, 0.95, 1e-8, 0.5});
    const at::Tensor before = arena.weights().clone();
    arena.gradients();  // zeros: only decay moves the weights
    optimizer.update(1, 0.1, 1.0, false);
    const int64_t decayed = arena.decayed();
    EXPECT_EQ(decayed, matrix ? kRows * kCols : 0);
    EXPECT_TRUE(
        at::equal(arena.weights().narrow(0, decayed, kVector), before.narrow(0, decayed, kVector)));
    if (!matrix) continue;
    const at::Tensor share = arena.weights().narrow(0, 0, decayed) / before.narrow(0, 0, decayed);
    EXPECT_LE((share - 0.95).abs().max().item<float>(), 1e-6f);
  }
}

TEST(Adamw, WritesTheShadowOfEveryWeight) {
  nn::Arena arena = small_arena();
  Adamw optimizer(arena, {});
  arena.shadow();
  set_gradient(arena, 1);
  optimizer.update(1, 0.1, 1.0, true);
  EXPECT_TRUE(at::equal(arena.shadow(), arena.weights().to(at::kBFloat16)));
}

// Weights that were updated without their bfloat16 copy make it old.
TEST(Adamw, AnUpdateWithoutShadowIsSeenByTheNextUse) {
  nn::Arena arena = small_arena();
  Adamw optimizer(arena, {});
  set_gradient(arena, 1);
  optimizer.update(1, 0.1, 1.0, true);
  optimizer.update(2, 0.1, 1.0, false);
  EXPECT_TRUE(at::equal(arena.shadow(), arena.weights().to(at::kBFloat16)));
}

TEST(Adamw, OptionsOutOfBoundsAreNamed) {
  nn::Arena arena = small_arena();
  const auto message = [&](const OptimizerOptions& options) -> std::string {
    try {
      Adamw optimizer(arena, options);
    } catch (const core::ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({}).find("beta"), std::string::npos);
  EXPECT_NE(message({1.0, 0.95, 1e-8, 0.1}).find("beta1 is 1"), std::string::npos);
  EXPECT_NE(message({0.9, -0.1, 1e-8, 0.1}).find("beta2"), std::string::npos);
  EXPECT_NE(message({0.9, 0.95, 0.0, 0.1}).find("eps"), std::string::npos);
  EXPECT_NE(message({0.9, 0.95, 1e-8, NAN}).find("weight_decay"), std::string::npos);
}

TEST(FlatNorm, EqualsThePlainSumWhateverTheThreads) {
  nn::Arena arena = small_arena();
  set_gradient(arena, 1);
  double squares = 0;
  for (const double g : values(arena.gradients())) squares += g * g;
  const double norm = flat_norm(arena.gradients());
  EXPECT_NEAR(norm, std::sqrt(squares), 1e-6 * std::sqrt(squares));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  EXPECT_EQ(flat_norm(arena.gradients()), norm);
  at::set_num_threads(threads);
  ::setenv("OMNIMA_REFERENCE", "1", 1);
  EXPECT_NEAR(flat_norm(arena.gradients()), norm, 1e-5 * norm);
  ::unsetenv("OMNIMA_REFERENCE");
}

TEST(ClipByWeight, ScalesRowsDownToTheirShareOfTheWeights) {
  nn::Arena arena = small_arena();
  arena.weights().narrow(0, 0, kCols).zero_();  // a row of zeros may move all the same
  set_gradient(arena, 1);
  const auto weights = values(arena.weights()), before = values(arena.gradients());
  clip_by_weight(arena, 0.5);
  const auto after = values(arena.gradients());
  int64_t cut = 0;
  for (int64_t row = 0; row <= kRows; ++row) {  // the last is the vector
    const int64_t first = row * kCols, count = row == kRows ? kVector : kCols;
    double own = 0, gradient = 0;
    for (int64_t i = first; i < first + count; ++i) {
      own += weights[i] * weights[i];
      gradient += before[i] * before[i];
    }
    const double share = std::min(1.0, 0.5 * std::max(1e-3, std::sqrt(own)) / std::sqrt(gradient));
    cut += share < 1.0;
    for (int64_t i = first; i < first + count; ++i) {
      ASSERT_NEAR(after[i], before[i] * share, 1e-6) << row;
    }
  }
  EXPECT_GT(cut, kRows / 2);
}

TEST(FlatNorm, IsNotFiniteWhenAnElementIsNot) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const at::Tensor x = at::full({100000}, 0.5, at::kFloat);
    x.data_ptr<float>()[99999] = bad;
    EXPECT_FALSE(std::isfinite(flat_norm(x)));
  }
}

}  // namespace
}  // namespace omnima::optim
