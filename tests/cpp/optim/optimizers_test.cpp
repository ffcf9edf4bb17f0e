// What holds for every optimizer of the registry: kernels as the plain version, the state is all
// there is to continue from, threads do not matter, groups and frozen parameters are respected.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "omnima/core/error.h"
#include "omnima/optim/optimizer.h"

namespace omnima::optim {
namespace {

constexpr int64_t kSteps = 6;

void build(nn::Arena& arena) {
  arena.add({"model.embed_tokens.weight", {90, 40}, 0.5});
  arena.add({"model.layers.0.wide.weight", {40, 600}, 0.5});
  arena.add({"model.layers.0.tall.weight", {900, 40}, 0.5});
  arena.add({"model.norm.weight", {77}, 0.5});
  arena.build(1, at::kCPU);
}

void set_gradient(nn::Arena& arena, int64_t step) {
  auto* gradient = arena.gradients().data_ptr<float>();
  for (int64_t i = 0; i < arena.size(); ++i) {
    gradient[i] = std::sin(static_cast<float>(i * i % 997) + 2.0f * static_cast<float>(step));
  }
}

void take_steps(Optimizer& optimizer, nn::Arena& arena, int64_t first, int64_t last,
                bool with_shadow = false) {
  for (int64_t step = first; step <= last; ++step) {
    set_gradient(arena, step);
    if (with_shadow) arena.shadow();
    optimizer.update(step, 0.01 / static_cast<double>(step), step % 2 == 0 ? 0.25 : 1.0,
                     with_shadow);
  }
}

class EveryOptimizer : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Optimizer> make(nn::Arena& arena, const OptimizerOptions& options = {}) {
    return make_optimizer(GetParam(), arena, options);
  }
};

INSTANTIATE_TEST_SUITE_P(Registry, EveryOptimizer, testing::ValuesIn(optimizer_names()),
                         [](const auto& info) { return info.param; });

TEST_P(EveryOptimizer, KernelsAreThePlainVersion) {
  at::Tensor weights[2];
  for (const bool reference : {false, true}) {
    if (reference) ::setenv("OMNIMA_REFERENCE", "1", 1);
    nn::Arena arena;
    build(arena);
    const auto optimizer = make(arena);
    take_steps(*optimizer, arena, 1, kSteps);
    weights[reference] = arena.weights().clone();
    ::unsetenv("OMNIMA_REFERENCE");
  }
  const at::Tensor difference = (weights[0] - weights[1]).abs();
  // A sign may turn where the mean gradient is nearly zero (Lion).
  EXPECT_LE(difference.mean().item<float>(), 1e-6f);
}

TEST_P(EveryOptimizer, ContinuesBitForBitFromItsState) {
  nn::Arena straight, saved;
  build(straight);
  build(saved);
  const auto whole = make(straight), half = make(saved);
  take_steps(*whole, straight, 1, kSteps);
  take_steps(*half, saved, 1, 3);
  nn::Arena fresh;
  build(fresh);
  const auto resumed = make(fresh);
  take_steps(*resumed, fresh, 1, 1);  // what it did before does not matter
  at::Tensor(fresh.weights()).copy_(saved.weights());
  for (const auto& [name, buffer] : half->state()) resumed->state().at(name).copy_(buffer);
  take_steps(*resumed, fresh, 4, kSteps);
  EXPECT_TRUE(at::equal(fresh.weights(), straight.weights()));
  for (const auto& [name, buffer] : whole->state()) {
    EXPECT_TRUE(at::equal(buffer, resumed->state().at(name))) << name;
  }
}

TEST_P(EveryOptimizer, ThreadsDoNotMatter) {
  if (GetParam() == "muon" || GetParam() == "adafactor") GTEST_SKIP() << "sums of ATen";
  const int threads = at::get_num_threads();
  at::Tensor weights[2];
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    nn::Arena arena;
    build(arena);
    const auto optimizer = make(arena);
    take_steps(*optimizer, arena, 1, 3);
    weights[count == 1] = arena.weights().clone();
  }
  at::set_num_threads(threads);
  EXPECT_LE((weights[0] - weights[1]).abs().max().item<float>(), 1e-6f);
}

TEST_P(EveryOptimizer, TheShadowIsTheRoundedWeights) {
  nn::Arena arena;
  build(arena);
  const auto optimizer = make(arena);
  for (const bool with_shadow : {true, false, true}) {
    take_steps(*optimizer, arena, 1, 2, with_shadow);
    EXPECT_TRUE(at::equal(arena.shadow(), arena.weights().to(at::kBFloat16)));
  }
}

TEST_P(EveryOptimizer, WhatIsFrozenStaysAndTheRestMoves) {
  nn::Arena arena;
  build(arena);
  OptimizerOptions options;
  options.freeze = {"*.wide.*@1-2", "*norm*"};
  const auto optimizer = make(arena, options);
  const auto part = [&](std::size_t i) {
    return arena.weights().narrow(0, arena.parameters()[i].offset, arena.parameters()[i].size());
  };
  const at::Tensor before = arena.weights().clone();
  const auto moved = [&](std::size_t i) {
    return !at::equal(part(i),
                      before.narrow(0, arena.parameters()[i].offset, arena.parameters()[i].size()));
  };
  take_steps(*optimizer, arena, 1, 2);
  EXPECT_TRUE(moved(0) && !moved(1) && moved(2) && !moved(3));
  take_steps(*optimizer, arena, 3, 3);
  EXPECT_TRUE(moved(1) && !moved(3));
}

TEST_P(EveryOptimizer, RowsThatAreFrozenStayToTheBitAndTheLastOnesMove) {
  nn::Arena arena;
  build(arena);
  OptimizerOptions options;
  options.freeze = {"*embed*[:70]", "*layers*", "*norm*[:70]"};
  const auto optimizer = make(arena, options);
  const at::Tensor before = arena.weights().clone();
  take_steps(*optimizer, arena, 1, 4);
  std::vector<at::Tensor> shown{arena.weights()};
  if (optimizer->averages()) shown.push_back(optimizer->averaged_weights());
  for (const auto& after : shown) {
    const at::Tensor same = after == before;
    const auto norm = arena.parameters()[3].offset;
    EXPECT_TRUE(same.narrow(0, 0, 70 * 40).all().item<bool>());
    EXPECT_TRUE(same.narrow(0, 90 * 40, norm + 70 - 90 * 40).all().item<bool>());
    EXPECT_LT(same.narrow(0, 70 * 40, 20 * 40).sum().item<int64_t>(), 40);
    EXPECT_LT(same.narrow(0, norm + 70, 7).sum().item<int64_t>(), 2);
  }
  options.freeze = {"*tall*[:1]"};
  if (GetParam() == "muon") EXPECT_THROW(make(arena, options), core::ConfigError);
}

TEST_P(EveryOptimizer, AGroupHasItsOwnRateAndDecay) {
  const auto changes = [&](const std::vector<std::string>& groups, double lr) {
    nn::Arena arena;
    build(arena);
    OptimizerOptions options;
    options.weight_decay = 0.5;
    options.groups = groups;
    const auto optimizer = make(arena, options);
    const at::Tensor before = arena.weights().clone();
    set_gradient(arena, 1);
    optimizer->update(1, lr, 1.0, false);
    return arena.weights() - before;
  };
  // Half the rate through a group is half the rate; with its own decay it moves otherwise.
  EXPECT_LE((changes({"*:lr=0.5"}, 0.02) - changes({}, 0.01)).abs().max().item<float>(), 1e-7f);
  EXPECT_GT((changes({"*:weight_decay=0"}, 0.01) - changes({}, 0.01)).abs().max().item<float>(),
            1e-5f);
}

TEST(Optimizers, AnUnknownNameNamesTheNearest) {
  nn::Arena arena;
  build(arena);
  try {
    make_optimizer("adam", arena, {});
    FAIL();
  } catch (const core::ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("nearest is \"adamw\""), std::string::npos);
  }
}

TEST(Optimizers, EightBitStateTakesASeventhOfTheMemoryAndFollowsAdamw) {
  const auto bytes = [](const Optimizer& optimizer) {
    double total = 0;
    for (const auto& [name, buffer] : optimizer.state())
      total += static_cast<double>(buffer.nbytes());
    return total;
  };
  nn::Arena a, b;
  build(a);
  build(b);
  const auto exact = make_optimizer("adamw", a, {}), narrow = make_optimizer("adamw_8bit", b, {});
  EXPECT_LE(bytes(*narrow), 0.3 * bytes(*exact));
  const at::Tensor start = a.weights().clone();
  take_steps(*exact, a, 1, 30);
  take_steps(*narrow, b, 1, 30);
  const double moved = (a.weights() - start).norm().item<double>();
  EXPECT_LE((a.weights() - b.weights()).norm().item<double>(), 0.05 * moved);
}

TEST(Optimizers, ScheduleFreeEvaluatesTheAverageOfItsPoints) {
  nn::Arena arena;
  build(arena);
  const auto optimizer = make_optimizer("schedule_free_adamw", arena, {});
  EXPECT_TRUE(optimizer->averages());
  at::Tensor sum = at::Tensor(arena.weights()) * 0.0;
  for (int64_t step = 1; step <= 4; ++step) {  // one rate: the average is the plain mean of z
    set_gradient(arena, step);
    optimizer->update(step, 0.01, 1.0, false);
    sum += optimizer->state().at("base");
  }
  EXPECT_LE((optimizer->averaged_weights() - sum / 4.0).abs().max().item<float>(), 1e-6f);
  OptimizerOptions none;
  none.beta1 = 0;
  EXPECT_THROW(make_optimizer("schedule_free_adamw", arena, none), core::ConfigError);
}

}  // namespace
}  // namespace omnima::optim
