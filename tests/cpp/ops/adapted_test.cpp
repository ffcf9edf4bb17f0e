// Linear layers with adapters: outputs and gradients against plain ATen, and slopes.
#include "omnima/ops/adapted.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include "omnima/ops/fused_linear.h"
#include "omnima/ops/linear.h"
#include "omnima/ops/product.h"
#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

constexpr double kScale = 1.5;

// The values in the number format of x.
Weight weight_like(const at::Tensor& leaf, const at::Tensor& x) {
  return weight_of(leaf, leaf.detach().to(leaf.dim() > 1 ? x.scalar_type() : at::kFloat));
}

// Of the base: it rests.
Weight resting(const at::Tensor& values, const at::Tensor& x) {
  return weight_like(values.detach(), x);
}

// x [2, 3, 6]; A of two parts [2 + 3, 6], their B for outputs 1 to 3 and 3 to 7 of 8; factors of
// outputs 2 to 5, and of the inputs.
Tensors inputs() {
  return {drawn({2, 3, 6}, 1), drawn({5, 6}, 2),          drawn({3, 2}, 3),
          drawn({4, 3}, 4),    drawn({4}, 5, 0.2).add(1), drawn({6}, 6).add(1)};
}

struct Case {
  bool products, outputs, with_bias, input;
};
constexpr Case kCases[] = {{true, false, false, false},
                           {true, true, false, false},
                           {false, true, true, false},
                           {false, false, false, true},
                           {true, true, true, true}};

Adapted adapted_of(const Tensors& in, const Case& which) {
  Adapted adapted;
  if (which.products) {
    adapted.products.push_back({weight_like(in[1], in[0]),
                                {{1, 3, 0, 2, weight_like(in[2], in[0]), kScale},
                                 {3, 4, 2, 3, weight_like(in[3], in[0]), 1.0}}});
  }
  if (which.outputs) adapted.outputs.push_back({2, 4, weight_of(in[4]), which.with_bias});
  if (which.input) adapted.input = weight_of(in[5]);
  return adapted;
}

const at::Tensor& base_weight() {
  static const at::Tensor weight = drawn({8, 6}, 7);
  return weight;
}
const at::Tensor& base_bias() {
  static const at::Tensor bias = drawn({8}, 8);
  return bias;
}

// What takes no part has a gradient of zero.
at::Tensor with_all(at::Tensor y, const Tensors& in) {
  for (const auto& each : in) y = y + (each.sum() * 0).to(y.scalar_type());
  return y;
}

Operator fast(const Case& which) {
  return [=](const Tensors& in) {
    const Weight weight = resting(base_weight(), in[0]), bias = resting(base_bias(), in[0]);
    return with_all(linear(in[0], weight, bias, adapted_of(in, which)), in);
  };
}

at::Tensor plain_linear(const at::Tensor& input, const Tensors& in, const Case& which) {
  const at::Tensor x = which.input ? input * in[5].to(input.scalar_type()) : input;
  // As the fast version sees it where numbers are 16 bits wide.
  const auto rounded = [&](const at::Tensor& w) { return w.to(x.scalar_type()); };
  at::Tensor y = at::linear(x, rounded(base_weight()));
  const auto columns = [&](int64_t first, int64_t count) { return y.narrow(-1, first, count); };
  if (which.products) {
    const at::Tensor low = at::linear(x, in[1]);
    const at::Tensor one = at::linear(low.narrow(-1, 0, 2), in[2]) * kScale;
    const at::Tensor two = at::linear(low.narrow(-1, 2, 3), in[3]);
    y = at::cat({columns(0, 1), columns(1, 2) + one.narrow(-1, 0, 2),
                 columns(3, 1) + one.narrow(-1, 2, 1) + two.narrow(-1, 0, 1),
                 columns(4, 3) + two.narrow(-1, 1, 3), columns(7, 1)},
                -1);
  }
  const auto scaled = [&](const at::Tensor& z) {
    return at::cat({z.narrow(-1, 0, 2), z.narrow(-1, 2, 4) * in[4], z.narrow(-1, 6, 2)}, -1);
  };
  if (which.outputs && !which.with_bias) y = scaled(y);
  y = y + base_bias();
  return which.outputs && which.with_bias ? scaled(y) : y;
}

Operator plain(const Case& which) {
  return [=](const Tensors& in) { return with_all(plain_linear(in[0], in, which), in); };
}

TEST(Adapted, EqualsThePlainParts) {
  for (const Case& which : kCases)
    expect_reference(fast(which), plain(which), inputs(), 2e-5, 4e-2);
}

TEST(Adapted, EqualsThePlainPartsInReferenceMode) {
  const ReferenceMode mode;
  for (const Case& which : kCases)
    expect_close(outcome(fast(which), inputs()), outcome(plain(which), inputs()), 2e-5);
}

TEST(Adapted, GradientsAreSlopes) {
  for (const Case& which : kCases) expect_slopes(fast(which), inputs());
}

// A factor of zero hides what it multiplied: its gradient is none the less exact.
TEST(Adapted, AFactorOfZeroHasItsGradient) {
  Tensors in = inputs();
  in[4] = in[4].clone();
  in[4].data_ptr<float>()[1] = 0;
  for (const Case& which : kCases) {
    expect_close(outcome(fast(which), in), outcome(plain(which), in), 2e-5);
  }
}

TEST(Adapted, StandsInFusedOperators) {
  for (const Case& which : kCases) {
    const Operator normed = [=](const Tensors& in) {
      const at::Tensor ones = drawn({6}, 9);
      const auto [sum, y] =
          norm_linear(in[0], {}, {resting(ones, in[0]), {}, 1e-5}, resting(base_weight(), in[0]),
                      resting(base_bias(), in[0]), adapted_of(in, which));
      return with_all(y, in);
    };
    const Operator normed_plainly = [=](const Tensors& in) {
      return with_all(plain_linear(reference::rms_norm(in[0], drawn({6}, 9), 1e-5), in, which), in);
    };
    expect_close(outcome(normed, inputs()), outcome(normed_plainly, inputs()), 3e-5);
    const auto wide = [](const Tensors& in) { return at::cat({in[0], in[0] * 0.5}, -1); };
    const Operator activated = [=](const Tensors& in) {
      return with_all(
          activation_linear(wide(in), Activation::kSwiglu, resting(base_weight(), in[0]),
                            resting(base_bias(), in[0]), adapted_of(in, which)),
          in);
    };
    const Operator activated_plainly = [=](const Tensors& in) {
      return with_all(plain_linear(reference::swiglu(wide(in)), in, which), in);
    };
    expect_close(outcome(activated, inputs()), outcome(activated_plainly, inputs()), 3e-5);
  }
}

TEST(Adapted, DropoutDrawsTheSameTwice) {
  const auto run = [](std::uint64_t seed) {
    return outcome(
        [=](const Tensors& in) {
          Adapted adapted = adapted_of(in, kCases[0]);
          adapted.products[0].dropout = 0.5;
          adapted.products[0].seed = seed;
          const Weight weight = resting(base_weight(), in[0]);
          return with_all(linear(in[0], weight, {}, adapted), in);
        },
        inputs());
  };
  const Outcome one = run(1), again = run(1), other = run(2);
  expect_close(one, again, 0);
  EXPECT_GT(distance(one.output, other.output), 1e-3);
}

TEST(Adapted, DropoutsGradientsAreSlopes) {
  expect_slopes(
      [=](const Tensors& in) {
        Adapted adapted = adapted_of(in, kCases[0]);
        adapted.products[0].dropout = 0.3;
        adapted.products[0].seed = 5;
        return with_all(linear(in[0], resting(base_weight(), in[0]), {}, adapted), in);
      },
      inputs());
}

// Two parts that share A [5, 6], which rests as their B do, with vectors before and behind B; and
// biases of outputs 2 to 4. x [2, 3, 6].
Tensors vectors() {
  return {drawn({2, 3, 6}, 1), drawn({5}, 11), drawn({3}, 12),
          drawn({5}, 13),      drawn({4}, 14), drawn({3}, 15)};
}

Operator with_vectors(bool frozen_matrices) {
  return [=](const Tensors& in) {
    const auto rests = [&](const std::vector<int64_t>& sizes, std::uint64_t seed) {
      const at::Tensor values = drawn(sizes, seed);
      return frozen_matrices ? Weight{{}, values.to(in[0].scalar_type())}
                             : weight_like(values, in[0]);
    };
    Adapted adapted;
    adapted.products.push_back(
        {rests({5, 6}, 2),
         {{1, 3, 0, 5, rests({3, 5}, 3), kScale, weight_of(in[1]), weight_of(in[2])},
          {3, 4, 0, 5, rests({4, 5}, 4), 1.0, weight_of(in[3]), weight_of(in[4])}}});
    adapted.biases.push_back({2, 3, weight_of(in[5])});
    return linear(in[0], resting(base_weight(), in[0]), resting(base_bias(), in[0]), adapted);
  };
}

Operator with_plain_vectors() {
  return [](const Tensors& in) {
    const auto like = [&](const at::Tensor& w) { return w.to(in[0].scalar_type()); };
    const at::Tensor low = at::linear(in[0], like(drawn({5, 6}, 2)));
    const auto part = [&](std::uint64_t seed, std::int64_t rows, const at::Tensor& inner,
                          const at::Tensor& outer) {
      return at::linear(low * like(inner), like(drawn({rows, 5}, seed))) * like(outer);
    };
    const at::Tensor one = part(3, 3, in[1], in[2]) * kScale, two = part(4, 4, in[3], in[4]);
    const at::Tensor y = at::linear(in[0], like(base_weight()));
    const at::Tensor bias =
        at::cat({base_bias().narrow(0, 0, 2), in[5], base_bias().narrow(0, 5, 3)}, 0);
    const auto columns = [](const at::Tensor& z, int64_t first, int64_t count) {
      return z.narrow(-1, first, count);
    };
    return at::cat({columns(y, 0, 1), columns(y, 1, 2) + columns(one, 0, 2),
                    columns(y, 3, 1) + columns(one, 2, 1) + columns(two, 0, 1),
                    columns(y, 4, 3) + columns(two, 1, 3), columns(y, 7, 1)},
                   -1) +
           like(bias);
  };
}

TEST(Adapted, VectorsBesideSharedMatricesEqualThePlainParts) {
  for (const bool frozen : {true, false}) {
    expect_reference(with_vectors(frozen), with_plain_vectors(), vectors(), 2e-5, 4e-2);
    expect_slopes(with_vectors(frozen), vectors());
  }
}

TEST(Adapted, BiasesAloneReadNoInput) {
  const at::Tensor ones = drawn({6}, 9);
  const Operator normed = [=](const Tensors& in) {
    Adapted adapted;
    adapted.biases.push_back({2, 3, weight_of(in[1])});
    return norm_linear(in[0], {}, {resting(ones, in[0]), {}, 1e-5}, resting(base_weight(), in[0]),
                       {}, adapted)
        .second;
  };
  const Operator plainly = [=](const Tensors& in) {
    const at::Tensor zeros = at::zeros({2}), more = at::zeros({3});
    return at::linear(reference::rms_norm(in[0], ones, 1e-5), base_weight(),
                      at::cat({zeros, in[1], more}, 0));
  };
  const Tensors in{drawn({2, 3, 6}, 1), drawn({3}, 15)};
  expect_close(outcome(normed, in), outcome(plainly, in), 3e-5);
}

// In training steps gradients go to buffers, and rows may be many.
TEST(Adapted, AddsGradientsToBuffers) {
  const at::Tensor x = drawn({700, 96}, 1), weight = drawn({64, 96}, 2);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor down = leaf(drawn({8, 96}, 3)), up = leaf(drawn({64, 8}, 4));
    const auto make = [&](bool direct) {
      Weight a = weight_of(down, down.detach().to(type)), b = weight_of(up, up.detach().to(type));
      if (direct) a.grad = at::ones_like(down.detach()), b.grad = at::ones_like(up.detach());
      return Adapted{{{a, {{0, 64, 0, 8, b, 2.0}}}}};
    };
    const Adapted direct = make(true), through = make(false);
    const Weight rests = resting(weight, x.to(type));
    for (const Adapted& each : {direct, through}) {
      const at::Tensor y = linear(x.to(type), rests, {}, each);
      torch::autograd::backward({y}, {drawn({700, 64}, 5).to(type)});
    }
    const double tolerance = type == at::kFloat ? 1e-6 : 1e-2;
    EXPECT_LE(distance(direct.products[0].down.grad - 1, down.grad()), tolerance);
    EXPECT_LE(distance(direct.products[0].parts[0].up.grad - 1, up.grad()), tolerance);
  }
}

TEST(ThinProduct, IsAddedToRowsThatLieApart) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t depth : {1, 3, 16, 40, 1500}) {
      const at::Tensor a = drawn({29, depth}, 1).to(type), b = drawn({depth, 37}, 2).to(type);
      const at::Tensor wide = drawn({29, 50}, 3).to(type), y = wide.clone();
      add_thin_product(y.narrow(1, 7, 37), a, b);
      const at::Tensor expected =
          wide.to(at::kFloat).narrow(1, 7, 37) + a.to(at::kFloat).mm(b.to(at::kFloat));
      EXPECT_LE(distance(y.narrow(1, 7, 37), expected), type == at::kFloat ? 1e-5 : 1e-2) << depth;
      EXPECT_TRUE(y.narrow(1, 0, 7).equal(wide.narrow(1, 0, 7)));
      EXPECT_TRUE(y.narrow(1, 44, 6).equal(wide.narrow(1, 44, 6)));
    }
  }
  EXPECT_TRUE(holds(
      message_of([] { add_thin_product(drawn({2, 2}, 1), drawn({2, 3}, 1), drawn({2, 2}, 1)); }),
      "add_thin_product takes"));
}

}  // namespace
}  // namespace omnima::ops
