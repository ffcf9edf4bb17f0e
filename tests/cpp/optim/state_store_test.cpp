// Wherever the state of an optimizer lies, the numbers are the same to the bit.
#include "omnima/optim/state_store.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "omnima/core/error.h"
#include "omnima/optim/optimizer.h"

namespace omnima::optim {
namespace {

constexpr int64_t kSmallSlice = 1024;  // many slices of a small arena

void build(nn::Arena& arena) {
  arena.add({"model.embed_tokens.weight", {90, 40}, 0.5});
  arena.add({"model.layers.0.wide.weight", {40, 600}, 0.5});
  arena.add({"model.norm.weight", {77}, 0.5});
  arena.build(1, at::kCPU);
}

void take_steps(Optimizer& optimizer, nn::Arena& arena, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step) {
    auto* gradient = arena.gradients().data_ptr<float>();
    for (int64_t i = 0; i < arena.size(); ++i) {
      gradient[i] = std::sin(static_cast<float>(i * i % 997) + 2.0f * static_cast<float>(step));
    }
    const bool with_shadow = step % 2 == 0;
    if (with_shadow) arena.shadow();
    optimizer.update(step, 0.01, 0.5, with_shadow);
  }
}

std::vector<std::shared_ptr<StateStore>> elsewhere() {
  const std::string directory = testing::TempDir();
  return {state_in_files(directory, kSmallSlice), state_staged(at::kCPU, "", kSmallSlice),
          state_staged(at::kCPU, directory, kSmallSlice), make_state_store(directory, at::kCPU)};
}

void expect_same(const Buffers& a, const Buffers& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, buffer] : a) EXPECT_TRUE(at::equal(buffer, b.at(name))) << name;
}

class OffloadedOptimizer : public testing::TestWithParam<std::string> {};

std::vector<std::string> names() {
  auto all = optimizer_names();
  all.erase(std::find(all.begin(), all.end(), "adafactor"));
  return all;
}

INSTANTIATE_TEST_SUITE_P(Registry, OffloadedOptimizer, testing::ValuesIn(names()),
                         [](const auto& info) { return info.param; });

TEST_P(OffloadedOptimizer, IsTheSameToTheBitWhereverItsStateLies) {
  OptimizerOptions options;
  options.groups = {"*wide*:lr=0.5"};
  nn::Arena plain;
  build(plain);
  const auto beside = make_optimizer(GetParam(), plain, options);
  EXPECT_FALSE(beside->store().offloads());
  take_steps(*beside, plain, 1, 4);
  for (const auto& store : elsewhere()) {
    nn::Arena arena;
    build(arena);
    options.store = store;
    const auto optimizer = make_optimizer(GetParam(), arena, options);
    EXPECT_TRUE(optimizer->store().offloads());
    take_steps(*optimizer, arena, 1, 4);
    store->settle();
    EXPECT_TRUE(at::equal(arena.weights(), plain.weights()));
    EXPECT_TRUE(at::equal(arena.shadow(), plain.shadow()));
    expect_same(optimizer->state(), beside->state());
    if (beside->averages()) {
      EXPECT_TRUE(at::equal(optimizer->averaged_weights(), beside->averaged_weights()));
    }
  }
}

TEST_P(OffloadedOptimizer, ContinuesFromAStateThatLayElsewhere) {
  OptimizerOptions options;
  nn::Arena plain;
  build(plain);
  const auto beside = make_optimizer(GetParam(), plain, options);
  take_steps(*beside, plain, 1, 2);
  std::vector<Buffers> halves;
  for (const auto& store : elsewhere()) {
    nn::Arena arena;
    build(arena);
    options.store = store;
    const auto optimizer = make_optimizer(GetParam(), arena, options);
    take_steps(*optimizer, arena, 1, 1);  // what it did before does not matter
    for (const auto& [name, buffer] : optimizer->state()) {
      store->fill(buffer, beside->state().at(name));
    }
    at::Tensor(arena.weights()).copy_(plain.weights());
    take_steps(*optimizer, arena, 3, 4);
    halves.push_back(optimizer->state());
    halves.back()["weights"] = arena.weights();
  }
  take_steps(*beside, plain, 3, 4);
  Buffers straight = beside->state();
  straight["weights"] = plain.weights();
  for (const auto& half : halves) expect_same(half, straight);
}

TEST(StateStore, SlicesAreInOrderAndWholeWhereAsked) {
  for (const auto& store : elsewhere()) {
    const at::Tensor a = store->zeros(2500, at::kFloat), b = store->zeros(2500, at::kByte);
    const at::Tensor values = at::randn({2500});
    store->fill(a, values.view({50, 50}));
    int64_t next = 0;
    store->over({a, b}, [&](int64_t first, int64_t count, const StateStore::Tensors& parts) {
      EXPECT_EQ(first, next);
      next = first + count;
      EXPECT_TRUE(at::equal(parts[0], values.narrow(0, first, count)));
      at::Tensor(parts[1]).fill_(3);
    });
    EXPECT_EQ(next, 2500);
    int calls = 0;
    const auto once = [&](int64_t first, int64_t count, const StateStore::Tensors& parts) {
      calls += first == 0 && count == 2500 && parts[0].eq(3).all().item<bool>();
    };
    store->over({b}, once, /*whole=*/true);
    store->over({b.narrow(0, 0, 0)}, once);
    EXPECT_EQ(calls, 1);
  }
}

TEST(StateStore, WhatSavesNothingIsRefused) {
  EXPECT_THROW(make_state_store("cpu", at::kCPU), core::ConfigError);
  EXPECT_THROW(make_state_store("/no/such/place", at::kCPU)->zeros(4, at::kFloat),
               core::ConfigError);
  EXPECT_FALSE(make_state_store("", at::kCPU)->offloads());
  nn::Arena arena;
  build(arena);
  OptimizerOptions options;
  options.store = state_in_files(testing::TempDir());
  EXPECT_THROW(make_optimizer("adafactor", arena, options), core::ConfigError);
}

}  // namespace
}  // namespace omnima::optim
