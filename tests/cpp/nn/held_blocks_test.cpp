// Matrices of the arena that are held in blocks: what layers see of them, and that they are nowhere
// as numbers.
#include "omnima/nn/held_blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "omnima/core/error.h"
#include "omnima/nn/arena.h"
#include "omnima/ops/embedding.h"
#include "omnima/ops/linear.h"
#include "omnima/ops/linear_cross_entropy.h"
#include "omnima/quant/convert.h"

namespace omnima::nn {
namespace {

at::Tensor blocks_of(const std::string& format, const at::Tensor& numbers) {
  return quant::quantized(quant::format_named(format), numbers).view({numbers.size(0), -1});
}

at::Tensor numbers_of(const std::string& format, const at::Tensor& blocks, int64_t inputs) {
  return quant::dequantized(quant::format_named(format), blocks.const_data_ptr(),
                            {blocks.size(0), inputs});
}

// Three matrices that act as one, in two formats and as numbers.
struct Mixed {
  Mixed() {
    slot = arena.add({"a", {5, 64}, 0.5});
    arena.add({"b", {3, 64}, 0.5});
    arena.add({"c", {2, 64}, 0.5});
    slot.count = 3;
    gain = arena.add({"gain", {64}, 0.0, 1.0});
    arena.add_factor(slot);
    arena.hold_in(0, quant::format_named("nf4_g32x2"));
    arena.hold_in(2, quant::format_named("int8_g64"));
    arena.build(3, at::kCPU);
    const at::Tensor a = blocks_of("nf4_g32x2", at::randn({5, 64}));
    const at::Tensor c = blocks_of("int8_g64", at::randn({2, 64}));
    arena.hold(0, a);
    arena.hold(2, c);
    numbers = at::cat(
        {numbers_of("nf4_g32x2", a, 64), arena.leaf(1).detach(), numbers_of("int8_g64", c, 64)});
  }
  Arena arena;
  Slot slot, gain;
  at::Tensor numbers;  // [10, 64]
};

TEST(HeldBlocks, TakeNoRoomInTheArena) {
  Mixed mixed;
  EXPECT_TRUE(mixed.arena.holds());
  EXPECT_EQ(mixed.arena.size(), 3 * 64 + 64);
  EXPECT_EQ(mixed.arena.numbers(), 10 * 64 + 64);
  EXPECT_EQ(mixed.arena.decayed(), 3 * 64);
  EXPECT_EQ(mixed.arena.gradients().numel(), mixed.arena.size());
  EXPECT_FALSE(mixed.arena.packs());
}

TEST(HeldBlocks, ActAsOneMatrixWithWhatIsNumbers) {
  Mixed mixed;
  EXPECT_TRUE(at::equal(mixed.arena.values(mixed.slot), mixed.numbers));
  mixed.arena.shadow();
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const ops::Weight weight = mixed.arena.weight(mixed.slot, {type});
    ASSERT_NE(weight.held, nullptr);
    EXPECT_TRUE(weight.frozen());
    EXPECT_EQ(weight.compute.sizes(), mixed.numbers.sizes());
    EXPECT_TRUE(weight.compute.isnan().all().item<bool>());
    EXPECT_TRUE(at::equal(ops::numbers_of(*weight.held, type), mixed.numbers.to(type)));
    // Rows that begin and end within parts.
    EXPECT_TRUE(at::equal(ops::numbers_of(*weight.held, 4, 5, type),
                          mixed.numbers.narrow(0, 4, 5).to(type)));
  }
}

TEST(HeldBlocks, LinearLayersAndTablesComputeWithTheirNumbers) {
  Mixed mixed;
  const at::Tensor x = at::randn({4, 7, 64}).requires_grad_();
  const ops::Weight held = mixed.arena.weight(mixed.slot, {});
  ops::Weight plain{{mixed.numbers}, mixed.numbers};
  const at::Tensor y = ops::linear(x, held, {}), wanted = ops::linear(x, plain, {});
  EXPECT_TRUE(at::equal(y, wanted));
  const at::Tensor dy = at::randn(y.sizes());
  y.backward(dy);
  const at::Tensor dx = x.grad().clone();
  x.mutable_grad().zero_();
  wanted.backward(dy);
  EXPECT_TRUE(at::equal(dx, x.grad()));
  const at::Tensor ids = at::randint(10, {3, 5}, at::kLong);
  EXPECT_TRUE(at::equal(ops::embedding(ids, held), ops::embedding(ids, plain)));
}

// More rows than become numbers at once.
TEST(HeldBlocks, TheLossPassesByInParts) {
  const int64_t vocab = (5 << 20) / 512 + 3, width = 512;
  const at::Tensor blocks = blocks_of("int8_g128", at::randn({vocab, width}).mul_(0.1));
  const auto held = std::make_shared<HeldBlocks>(std::vector<quant::Matrix>{
      quant::matrix_of(quant::format_named("int8_g128"), blocks, vocab, width)});
  const at::Tensor numbers = numbers_of("int8_g128", blocks, width);
  const at::Tensor labels = at::randint(vocab, {6}, at::kLong);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({6, width}).to(type).requires_grad_();
    const auto loss_and_gradient = [&](const ops::Weight& weight) {
      if (x.grad().defined()) x.mutable_grad().zero_();
      const at::Tensor loss = ops::linear_cross_entropy(x, weight, labels, 1.0);
      loss.backward();
      return std::make_pair(loss.item<double>(), x.grad().to(at::kFloat));
    };
    const at::Tensor stand_in = at::empty({}, type).expand({vocab, width});
    const auto [loss, dx] = loss_and_gradient({{numbers}, stand_in, {}, {}, {}, held});
    const auto [wanted, wanted_dx] = loss_and_gradient({{numbers}, numbers.to(type)});
    EXPECT_EQ(loss, wanted);
    const double error = dx.sub(wanted_dx).abs().max().item<double>();
    EXPECT_LE(error, (type == at::kFloat ? 1e-6 : 1e-2) * wanted_dx.abs().max().item<double>());
  }
}

TEST(HeldBlocks, NumbersOfSixteenBitsAreReadWhereTheyLie) {
  const at::Tensor numbers = at::randn({3, 8}).to(at::kBFloat16);
  const HeldBlocks held({quant::matrix_of(numbers)});
  EXPECT_EQ(ops::numbers_of(held, at::kBFloat16).const_data_ptr(), numbers.const_data_ptr());
  EXPECT_TRUE(at::equal(ops::numbers_of(held, at::kFloat), numbers.to(at::kFloat)));
}

TEST(HeldBlocks, WhatDoesNotFitIsRefused) {
  Arena arena;
  arena.add({"a", {4, 48}, 0.5});
  arena.add({"gain", {48}, 0.0, 1.0});
  EXPECT_THROW(arena.hold_in(0, quant::format_named("int4_g32")), core::ConfigError);
  EXPECT_THROW(arena.hold_in(1, quant::format_named("f16")), core::ConfigError);
  arena.hold_in(0, quant::format_named("f16"));
  arena.build(1, at::kCPU);
  EXPECT_THROW(arena.weight({0, 1}, {}), core::Error);
  EXPECT_THROW(arena.hold(0, at::empty({4, 95}, at::kByte)), core::DataError);
  EXPECT_THROW(arena.hold(1, at::empty({96}, at::kByte)), core::Error);
  arena.hold(0, at::zeros({4, 96}, at::kByte));
  EXPECT_TRUE(arena.values({0, 1}).eq(0).all().item<bool>());
}

}  // namespace
}  // namespace omnima::nn
