// The arena: its layout, its first values, and the buffers beside the weights.
#include "omnima/nn/arena.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <set>

#include "omnima/core/error.h"
#include "omnima/nn/pass.h"

namespace omnima::nn {
namespace {

// A vector stands between matrices: the arena sorts them.
struct Small {
  explicit Small(std::uint64_t seed = 3) {
    first = arena.add({"first", {40, 10}, 0.5});
    gain = arena.add({"gain", {10}, 0.0, 1.0});
    pair = arena.add({"left", {3, 10}, 0.1});
    arena.add({"right", {2, 10}, 0.1});
    pair.count = 2;
    bias = arena.add({"bias", {5}});
    arena.build(seed, at::kCPU);
  }
  Arena arena;
  Slot first, gain, pair, bias;
};

TEST(Arena, MatricesComeFirstInTheOrderOfDeclaration) {
  const Small s;
  std::vector<int64_t> offsets;
  for (const auto& parameter : s.arena.parameters()) offsets.push_back(parameter.offset);
  EXPECT_EQ(offsets, (std::vector<int64_t>{0, 450, 400, 430, 460}));
  EXPECT_EQ(s.arena.decayed(), 450);
  EXPECT_EQ(s.arena.size(), 465);
}

TEST(Arena, LeavesAreViewsOfTheOneBuffer) {
  Small s;
  EXPECT_TRUE(s.arena.leaf(0).is_leaf() && s.arena.leaf(0).requires_grad());
  EXPECT_EQ(s.arena.leaf(3).sizes().vec(), (std::vector<int64_t>{2, 10}));
  at::Tensor(s.arena.weights()).narrow(0, 430, 20).fill_(7.0);
  EXPECT_EQ(s.arena.leaf(3).min().item<float>(), 7.0f);
  EXPECT_NE(s.arena.leaf(2).max().item<float>(), 7.0f);
}

TEST(Arena, FirstValuesFollowTheSeedAndTheirWidth) {
  const Small a(3), b(3), c(4);
  EXPECT_TRUE(at::equal(a.arena.weights(), b.arena.weights()));
  EXPECT_FALSE(at::equal(a.arena.weights(), c.arena.weights()));
  EXPECT_NEAR(a.arena.leaf(0).std().item<float>(), 0.5, 0.06);
  EXPECT_NEAR(a.arena.leaf(0).mean().item<float>(), 0.0, 0.08);
  EXPECT_TRUE(a.arena.leaf(1).eq(1.0).all().item<bool>());
  EXPECT_TRUE(a.arena.leaf(4).eq(0.0).all().item<bool>());
  // Neighbours are drawn apart, not as one stream.
  EXPECT_FALSE(at::equal(a.arena.leaf(2).narrow(0, 0, 2), a.arena.leaf(3)));
}

TEST(Arena, WithoutASeedItOnlyMakesRoom) {
  Arena arena;
  arena.add({"first", {40, 10}, 0.5});
  arena.add({"gain", {10}, 0.0, 1.0});
  arena.build(std::nullopt, at::kCPU);
  EXPECT_EQ(arena.size(), 410);
  EXPECT_TRUE(arena.leaf(1).is_leaf() && arena.leaf(1).requires_grad());
  EXPECT_EQ(arena.leaf(1).sizes().vec(), (std::vector<int64_t>{10}));
}

TEST(Arena, TakesNoParameterAfterItWasBuilt) {
  Small s;
  try {
    s.arena.add({"late", {2}});
    FAIL() << "no error was thrown";
  } catch (const core::Error& error) {
    EXPECT_STREQ(error.what(), "Parameter late came after the arena was built.");
  }
}

TEST(Arena, NeighboursActAsOneWeight) {
  const Small s;
  const auto weight = s.arena.weight(s.pair, {});
  EXPECT_EQ(weight.leaves.size(), 2u);
  EXPECT_EQ(weight.compute.sizes().vec(), (std::vector<int64_t>{5, 10}));
  EXPECT_TRUE(at::equal(weight.compute.narrow(0, 3, 2), s.arena.leaf(3)));
  EXPECT_FALSE(weight.direct());
  EXPECT_TRUE(s.arena.weight({}, {}).leaves.empty());  // a bias that a layer does not have
}

TEST(Arena, DirectGradientsAreViewsOfTheirBuffer) {
  Small s;
  EXPECT_EQ(s.arena.gradients().abs().max().item<float>(), 0.0f);
  auto weight = s.arena.weight(s.pair, {at::kFloat, true});
  ASSERT_TRUE(weight.direct());
  weight.grad.fill_(2.0);
  EXPECT_EQ(s.arena.gradients().sum().item<float>(), 100.0f);
  EXPECT_EQ(s.arena.gradients()[400].item<float>(), 2.0f);
  EXPECT_EQ(s.arena.gradients()[450].item<float>(), 0.0f);
}

TEST(Arena, TheShadowFollowsWeightsThatTensorsChanged) {
  Small s;
  EXPECT_TRUE(at::equal(s.arena.shadow(), s.arena.weights().to(at::kBFloat16)));
  at::Tensor(s.arena.leaf(0).detach()).mul_(1.5);
  EXPECT_TRUE(at::equal(s.arena.shadow(), s.arena.weights().to(at::kBFloat16)));
}

TEST(Arena, OnlyMatricesAreNarrow) {
  Small s;
  s.arena.shadow();
  const Compute compute{at::kBFloat16, false};
  EXPECT_EQ(s.arena.weight(s.first, compute).compute.scalar_type(), at::kBFloat16);
  EXPECT_EQ(s.arena.weight(s.gain, compute).compute.scalar_type(), at::kFloat);
  EXPECT_EQ(s.arena.weight(s.first, compute).leaves[0].scalar_type(), at::kFloat);
}

TEST(Pass, DropoutSeedsDiffer) {
  const Small s;
  Pass pass{s.arena, {}, {}, 0.1, 17};
  std::set<std::uint64_t> seeds;
  for (int i = 0; i < 100; ++i) seeds.insert(pass.next_dropout_seed());
  EXPECT_EQ(seeds.size(), 100u);
  EXPECT_EQ(seeds.count(17), 0u);
}

}  // namespace
}  // namespace omnima::nn
