// The product y = x W^T + b: fused leaves, gradients through autograd and into a buffer.
#include "omnima/ops/linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include "ops_fixture.h"

namespace omnima::ops {
namespace {

// The leaves as the arena gives them: neighbours in one matrix.
Weight fused(const Tensors& leaves, at::ScalarType type, const at::Tensor& grad = {}) {
  Tensors values;
  for (const auto& leaf : leaves) values.push_back(leaf.detach().to(type));
  return {leaves, at::cat(values, 0), grad};
}

// inputs: x, two weights, two biases.
Tensors inputs() {
  return {drawn({2, 3, 5}, 1), drawn({4, 5}, 2), drawn({3, 5}, 3), drawn({4}, 4), drawn({3}, 5)};
}

at::Tensor fast(const Tensors& in) {
  return linear(in[0], fused({in[1], in[2]}, in[0].scalar_type()),
                fused({in[3], in[4]}, at::kFloat));
}
at::Tensor plain(const Tensors& in) {
  return at::linear(in[0], at::cat({in[1], in[2]}, 0), at::cat({in[3], in[4]}, 0));
}

TEST(LinearOperator, EqualsAtenOnTheFusedLeaves) {
  expect_close(outcome(fast, inputs()), outcome(plain, inputs()), 1e-5);
}

// Weights are float32 leaves; only the values to compute with are bfloat16.
TEST(LinearOperator, EqualsAtenInBfloat16) {
  Tensors in = inputs(), wide = in;
  in[0] = in[0].to(at::kBFloat16);
  for (std::size_t i = 0; i < 3; ++i) wide[i] = wide[i].to(at::kBFloat16).to(at::kFloat);
  const Outcome actual = outcome(fast, in);
  EXPECT_EQ(actual.output.scalar_type(), at::kBFloat16);
  EXPECT_EQ(actual.gradients[1].scalar_type(), at::kFloat);
  expect_close(actual, outcome(plain, wide), 1e-2);
}

TEST(LinearOperator, WorksWithoutABiasAndOnOneRow) {
  const Tensors in{drawn({7}, 1), drawn({3, 7}, 2)};
  expect_close(outcome([](const Tensors& x) { return linear(x[0], weight_of(x[1]), {}); }, in),
               outcome([](const Tensors& x) { return at::linear(x[0], x[1]); }, in), 1e-5);
}

TEST(LinearOperator, GradientsAreSlopes) { expect_slopes(fast, inputs()); }

TEST(LinearOperator, AddsGradientsToTheBuffers) {
  const Outcome expected = outcome(plain, inputs());
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor weight_grad = at::zeros({7, 5}, at::kFloat) + 1.0;
    const at::Tensor bias_grad = at::zeros({7}, at::kFloat) + 1.0;
    Tensors in = inputs();
    in[0] = in[0].to(type);
    const Outcome direct = outcome(
        [&](const Tensors& x) {
          return linear(x[0], fused({x[1], x[2]}, type, weight_grad),
                        fused({x[3], x[4]}, at::kFloat, bias_grad));
        },
        in);
    const double tolerance = type == at::kFloat ? 1e-5 : 1e-2;
    for (std::size_t i = 1; i < 5; ++i) EXPECT_FALSE(direct.gradients[i].defined());
    EXPECT_LE(distance(direct.gradients[0], expected.gradients[0]), tolerance);
    const Tensors weights{expected.gradients[1], expected.gradients[2]};
    const Tensors biases{expected.gradients[3], expected.gradients[4]};
    EXPECT_LE(distance(weight_grad - 1.0, at::cat(weights, 0)), tolerance);
    EXPECT_LE(distance(bias_grad - 1.0, at::cat(biases, 0)), tolerance);
  }
}

// The first layer's input is no leaf: its gradient is not computed.
TEST(LinearOperator, AnInputWithoutGradientIsLeftAlone) {
  const at::Tensor x = drawn({3, 5}, 1), w = leaf(drawn({2, 5}, 2));
  torch::autograd::backward({linear(x, weight_of(w), {}).sum()}, {});
  EXPECT_FALSE(x.grad().defined());
  EXPECT_LE(distance(w.grad(), x.sum(0, true).expand({2, 5})), 1e-6);
}

TEST(LinearOperator, ErrorsNameTheShapes) {
  const Weight weight = weight_of(drawn({3, 7}, 2));
  EXPECT_TRUE(holds(message_of([&] { linear(at::zeros({2, 6}, at::kFloat), weight, {}); }),
                    "7 input features, but its input is Float of the shape [2, 6]"));
  EXPECT_TRUE(holds(message_of([&] { linear(at::zeros({2, 7}, at::kBFloat16), weight, {}); }),
                    "a Float weight"));
}

}  // namespace
}  // namespace omnima::ops
