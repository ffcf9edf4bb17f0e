// Linear layers with a norm or an activation before them: outputs, gradients, and the same bits as
// the parts one by one.
#include "omnima/ops/fused_linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include "omnima/ops/linear.h"
#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

constexpr double kEps = 1e-4;

// A leaf and the values to compute with: matrices in the number format of x.
Weight weight_like(const at::Tensor& leaf, const at::Tensor& x) {
  return weight_of(leaf, leaf.detach().to(leaf.dim() > 1 ? x.scalar_type() : at::kFloat));
}

// in: x, change, weight, bias, norm weight, norm bias. Both outputs, side by side.
Tensors norm_inputs() {
  return {drawn({2, 3, 5}, 1), drawn({2, 3, 5}, 2), drawn({7, 5}, 3),
          drawn({7}, 4),       drawn({5}, 5),       drawn({5}, 6)};
}

NormWeight norm_of(const Tensors& in, bool layer) {
  return {weight_of(in[4]), layer ? weight_of(in[5]) : Weight{}, kEps};
}

Operator fused(bool layer, bool change = true) {
  return [=](const Tensors& in) {
    const auto [sum, y] = norm_linear(in[0], change ? in[1] : at::Tensor(), norm_of(in, layer),
                                      weight_like(in[2], in[0]), weight_of(in[3]));
    at::Tensor all = at::cat({sum, y}, -1);
    // What is not used so far gets a gradient of zero.
    if (!layer) all = all + (in[5].sum() * 0).to(all.scalar_type());
    if (!change) all = all + (in[1].sum() * 0).to(all.scalar_type());
    return all;
  };
}

Operator plain(bool layer, bool change = true) {
  return [=](const Tensors& in) {
    const at::Tensor sum = change ? in[0] + in[1] : in[0];
    const at::Tensor normed = layer ? reference::layer_norm(sum, in[4], in[5], kEps)
                                    : reference::rms_norm(sum, in[4], kEps);
    at::Tensor all = at::cat({sum, at::linear(normed, in[2], in[3])}, -1);
    if (!layer) all = all + in[5].sum() * 0;
    if (!change) all = all + in[1].sum() * 0;
    return all;
  };
}

TEST(NormLinear, EqualsThePlainParts) {
  for (const bool layer : {false, true}) {
    for (const bool change : {false, true}) {
      expect_reference(fused(layer, change), plain(layer, change), norm_inputs(), 2e-5, 3e-2);
    }
  }
}

TEST(NormLinear, GradientsAreSlopes) {
  for (const bool layer : {false, true}) expect_slopes(fused(layer), norm_inputs());
}

TEST(NormLinear, WorksWhereOnlyTheProductIsUsed) {
  const auto last = [](const Operator& run) {
    return [=](const Tensors& in) { return run(in).narrow(-1, 5, 7); };
  };
  expect_close(outcome(last(fused(false)), norm_inputs()),
               outcome(last(plain(false)), norm_inputs()), 2e-5);
}

// Many rows: several ranges of rows with sums of their own, on any number of threads.
TEST(NormLinear, SameBitsAsThePartsOneByOne) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    Tensors in{drawn({700, 48}, 1).to(type), drawn({700, 48}, 2).to(type), drawn({33, 48}, 3),
               drawn({33}, 4), drawn({48}, 5)};
    const auto one_by_one = [](const Tensors& x) {
      const at::Tensor sum = x[0] + x[1];
      const NormWeight norm_weight{weight_of(x[4]), {}, kEps};
      return at::cat({sum, linear(norm(sum, norm_weight), weight_like(x[2], sum), weight_of(x[3]))},
                     -1);
    };
    const auto together = [](const Tensors& x) {
      const auto [sum, y] = norm_linear(x[0], x[1], {weight_of(x[4]), {}, kEps},
                                        weight_like(x[2], x[0]), weight_of(x[3]));
      return at::cat({sum, y}, -1);
    };
    expect_close(outcome(together, in), outcome(one_by_one, in), 0);
  }
}

TEST(NormLinear, RefusesShapesThatDoNotFit) {
  const Tensors in = norm_inputs();
  const Weight weight = weight_of(in[2]), bias = weight_of(in[3]);
  const auto message = [&](const at::Tensor& x, const at::Tensor& change, const NormWeight& norm) {
    return message_of([&] { norm_linear(x, change, norm, weight, bias); });
  };
  EXPECT_TRUE(
      holds(message(in[0], drawn({2, 3, 4}, 1), norm_of(in, false)), "a change of the shape"));
  EXPECT_TRUE(holds(message(drawn({2, 4}, 1), {}, norm_of(in, false)), "rows of 5 elements"));
  EXPECT_TRUE(holds(message(in[0], {}, {weight_of(in[4]), weight_of(in[3]), kEps}),
                    "a bias for rows of 7"));
}

// in: x, weight, bias.
Operator activated(Activation activation) {
  return [=](const Tensors& in) {
    return activation_linear(in[0], activation, weight_like(in[1], in[0]), weight_of(in[2]));
  };
}

Tensors activation_inputs(Activation activation) {
  return {drawn({2, 3, 10}, 1), drawn({4, activated_size(10, activation)}, 2), drawn({4}, 3)};
}

constexpr Activation kAll[] = {Activation::kSwiglu, Activation::kGelu, Activation::kGeluTanh};

TEST(ActivationLinear, EqualsThePlainParts) {
  for (const auto activation : kAll) {
    const auto parts = [=](const Tensors& in) {
      const at::Tensor y = activation == Activation::kSwiglu
                               ? reference::swiglu(in[0])
                               : reference::gelu(in[0], activation == Activation::kGeluTanh);
      return at::linear(y, in[1], in[2]);
    };
    expect_reference(activated(activation), parts, activation_inputs(activation), 2e-5, 3e-2);
    expect_slopes(activated(activation), activation_inputs(activation));
  }
}

TEST(ActivationLinear, AddsGradientsToTheBuffers) {
  const Tensors in = activation_inputs(Activation::kSwiglu);
  const Outcome expected = outcome(activated(Activation::kSwiglu), in);
  const at::Tensor weight_grad = at::zeros({4, 5}, at::kFloat) + 1.0;
  const at::Tensor bias_grad = at::zeros({4}, at::kFloat) + 1.0;
  const Outcome direct = outcome(
      [&](const Tensors& x) {
        return activation_linear(x[0], Activation::kSwiglu, {{x[1]}, x[1].detach(), weight_grad},
                                 {{x[2]}, x[2].detach(), bias_grad});
      },
      in);
  EXPECT_LE(distance(direct.gradients[0], expected.gradients[0]), 1e-6);
  EXPECT_FALSE(direct.gradients[1].defined());
  EXPECT_LE(distance(weight_grad - 1.0, expected.gradients[1]), 1e-6);
  EXPECT_LE(distance(bias_grad - 1.0, expected.gradients[2]), 1e-6);
}

TEST(ActivationLinear, RunsItsPartsInReferenceMode) {
  const Tensors in = activation_inputs(Activation::kGelu);
  const Outcome fast = outcome(activated(Activation::kGelu), in);
  const ReferenceMode mode;
  expect_close(outcome(activated(Activation::kGelu), in), fast, 2e-5);
  expect_close(outcome(fused(true), norm_inputs()), outcome(plain(true), norm_inputs()), 2e-5);
}

TEST(ActivationLinear, RefusesShapesThatDoNotFit) {
  EXPECT_TRUE(holds(message_of([] {
                      activation_linear(drawn({3, 8}, 1), Activation::kSwiglu,
                                        weight_of(drawn({4, 5}, 2)), {});
                    }),
                    "5 input features"));
  EXPECT_TRUE(holds(message_of([] { activation_of("relu"); }), "gelu_tanh"));
}

}  // namespace
}  // namespace omnima::ops
