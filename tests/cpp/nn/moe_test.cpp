// The mixture of experts as a layer: capacity, shared expert, what the stream carries.
#include "omnima/nn/moe.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

namespace omnima::nn {
namespace {

struct Tiny {
  explicit Tiny(double capacity, int64_t shared = 0) : norm(arena, "norm", 8, false, 1e-5) {
    const Mlp::Options expert{8, 16, "swiglu", false, 0.5, 0.5};
    moe.emplace(arena, "mlp", Moe::Options{expert, 4, 2, true, shared, capacity});
    arena.build(1, at::kCPU);
  }
  at::Tensor run(bool training) {
    const at::Tensor x = (at::arange(2 * 32 * 8, at::kFloat) * 0.37).sin().view({2, 32, 8});
    stream = {x, x * 0.5};
    Pass pass{arena, {}, {}};
    pass.training = training;
    const at::Tensor y = moe->forward(stream, norm, pass);
    EXPECT_EQ(pass.routers, training ? 1 : 0);
    return y;
  }
  Arena arena;
  Norm norm;
  std::optional<Moe> moe;
  Stream stream;
};

TEST(Moe, TheStreamHoldsItsSumAndLossesInTraining) {
  Tiny tiny(0);
  EXPECT_EQ(tiny.run(false).sizes(), at::IntArrayRef({2, 32, 8}));
  EXPECT_FALSE(tiny.stream.losses.defined());
  EXPECT_FALSE(tiny.stream.change.defined());
  const at::Tensor x = (at::arange(2 * 32 * 8, at::kFloat) * 0.37).sin().view({2, 32, 8});
  EXPECT_TRUE(at::allclose(tiny.stream.x, x * 1.5));
  tiny.run(true);
  ASSERT_TRUE(tiny.stream.losses.defined());
  EXPECT_GT(tiny.stream.losses[0].item<float>(), 1.9f);  // 2 where all experts are alike
}

TEST(Moe, CapacityBoundsTrainingAlone) {
  Tiny all(0), bounded(1);
  EXPECT_TRUE(all.run(false).equal(bounded.run(false)));
  EXPECT_TRUE(all.run(true).equal(all.run(false)));
  const at::Tensor changed = (all.run(true) - bounded.run(true)).abs().sum(-1).gt(0).flatten();
  EXPECT_TRUE(changed.any().item<bool>());
  EXPECT_FALSE(changed.all().item<bool>());
  EXPECT_FALSE(changed[0].item<bool>());  // first come, first served
}

TEST(Moe, ASharedExpertIsAddedToTheOthers) {
  Tiny alone(0), shared(0, 12);
  for (std::size_t i = 0; i < alone.arena.parameters().size(); ++i) {
    for (std::size_t j = 0; j < shared.arena.parameters().size(); ++j) {
      if (alone.arena.parameters()[i].name == shared.arena.parameters()[j].name) {
        shared.arena.leaf(j).detach().copy_(alone.arena.leaf(i).detach());
      }
    }
  }
  const at::Tensor with = shared.run(false), without = alone.run(false);
  EXPECT_FALSE(at::allclose(with, without));
  for (std::size_t j = 0; j < shared.arena.parameters().size(); ++j) {
    const auto& name = shared.arena.parameters()[j].name;
    if (name == "mlp.shared_expert.down_proj.weight") shared.arena.leaf(j).detach().zero_();
  }
  EXPECT_TRUE(at::allclose(shared.run(false), without, 1e-5, 1e-6));
}

}  // namespace
}  // namespace omnima::nn
