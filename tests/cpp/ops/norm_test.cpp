// RMSNorm and LayerNorm against their plain meaning, their gradients, and where gradients go.
#include "omnima/ops/norm.h"

#include <ATen/ops/zeros.h>

#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

constexpr double kEps = 1e-5;

// inputs: x, weight and, for layer_norm, bias.
at::Tensor fast_rms(const Tensors& in) { return rms_norm(in[0], weight_of(in[1]), kEps); }
at::Tensor plain_rms(const Tensors& in) { return reference::rms_norm(in[0], in[1], kEps); }
at::Tensor fast_layer(const Tensors& in) {
  return layer_norm(in[0], weight_of(in[1]), weight_of(in[2]), kEps);
}
at::Tensor plain_layer(const Tensors& in) {
  return reference::layer_norm(in[0], in[1], in[2], kEps);
}

Tensors inputs(const std::vector<int64_t>& sizes) {
  return {drawn(sizes, 1) + 0.5, drawn({sizes.back()}, 2) + 1.0, drawn({sizes.back()}, 3)};
}
Tensors without_bias(const Tensors& in) { return {in[0], in[1]}; }

class NormOperator : public ::testing::TestWithParam<std::vector<int64_t>> {};

TEST_P(NormOperator, EqualsTheReference) {
  const Tensors in = inputs(GetParam());
  expect_reference(fast_rms, plain_rms, without_bias(in), 2e-5);
  expect_reference(fast_layer, plain_layer, in, 2e-5);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, NormOperator,
                         ::testing::Values(std::vector<int64_t>{1, 3}, std::vector<int64_t>{3, 7},
                                           std::vector<int64_t>{2, 5, 33},
                                           std::vector<int64_t>{130, 256},
                                           std::vector<int64_t>{2, 1000}));

TEST(NormSlopes, GradientsAreSlopes) {
  const Tensors in = inputs({3, 6});
  expect_slopes(fast_rms, without_bias(in));
  expect_slopes(fast_layer, in);
}

TEST(NormInputs, NeedNotBeContiguous) {
  const Tensors in{drawn({9, 4}, 4), drawn({9}, 5), drawn({9}, 6)};
  const auto turned = [](auto run) {
    return [run](const Tensors& x) {
      Tensors other = x;
      other[0] = x[0].transpose(0, 1);
      return run(other);
    };
  };
  expect_reference(turned(fast_rms), turned(plain_rms), without_bias(in), 2e-5);
  expect_reference(turned(fast_layer), turned(plain_layer), in, 2e-5);
}

// In a training step gradients are added to the arena's buffer, on the fast and the plain path.
TEST(NormGradients, AreAddedToTheBufferOfTheWeight) {
  const Tensors in = inputs({5, 12});
  const Outcome expected = outcome(plain_layer, in);
  const Outcome expected_rms = outcome(plain_rms, without_bias(in));
  for (const bool plain : {false, true}) {
    const auto mode = plain ? std::make_unique<ReferenceMode>() : nullptr;
    const at::Tensor weight_grad = at::zeros({12}, at::kFloat) + 3.0;
    const at::Tensor bias_grad = at::zeros({12}, at::kFloat) - 2.0;
    const Outcome layer = outcome(
        [&](const Tensors& x) {
          return layer_norm(x[0], {{x[1]}, x[1].detach(), weight_grad},
                            {{x[2]}, x[2].detach(), bias_grad}, kEps);
        },
        in);
    EXPECT_LE(distance(layer.gradients[0], expected.gradients[0]), 2e-5);
    EXPECT_FALSE(layer.gradients[1].defined() || layer.gradients[2].defined());
    EXPECT_LE(distance(weight_grad - 3.0, expected.gradients[1]), 2e-5);
    EXPECT_LE(distance(bias_grad + 2.0, expected.gradients[2]), 2e-5);
    const at::Tensor rms_grad = at::zeros({12}, at::kFloat) + 3.0;
    const Outcome rms = outcome(
        [&](const Tensors& x) { return rms_norm(x[0], {{x[1]}, x[1].detach(), rms_grad}, kEps); },
        without_bias(in));
    EXPECT_LE(distance(rms.gradients[0], expected_rms.gradients[0]), 2e-5);
    EXPECT_FALSE(rms.gradients[1].defined());
    EXPECT_LE(distance(rms_grad - 3.0, expected_rms.gradients[1]), 2e-5);
  }
}

TEST(NormErrors, NameWhatWasExpected) {
  const Weight seven = weight_of(drawn({7}, 1)), six = weight_of(drawn({6}, 1));
  EXPECT_TRUE(holds(message_of([&] { rms_norm(at::zeros({2, 6}, at::kFloat), seven, kEps); }),
                    "rms_norm has a weight for rows of 7 elements"));
  EXPECT_TRUE(
      holds(message_of([&] { layer_norm(at::zeros({2, 7}, at::kFloat), seven, six, kEps); }),
            "rows of 7 elements, but a bias for rows of 6"));
  EXPECT_TRUE(holds(message_of([&] { rms_norm(at::zeros({2, 6}, at::kDouble), six, kEps); }),
                    "rms_norm takes float32 or bfloat16, not Double"));
  EXPECT_TRUE(holds(message_of([&] { layer_norm(at::zeros({2, 6}, at::kLong), six, six, kEps); }),
                    "layer_norm takes float32 or bfloat16, not Long"));
}

}  // namespace
}  // namespace omnima::ops
