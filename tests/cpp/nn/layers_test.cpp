// Layers against the same parts written with plain ATen operators, and their parameters' names.
#include "omnima/nn/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <map>

#include "omnima/ops/reference.h"

namespace omnima::nn {
namespace {

namespace reference = ops::reference;
using Leaves = std::map<std::string, at::Tensor>;
using Layer = std::function<at::Tensor(const at::Tensor&, Pass&)>;
using Plain = std::function<at::Tensor(const at::Tensor&, const Leaves&)>;

constexpr double kStd = 0.3;

at::Tensor input() { return (at::arange(2 * 5 * 8, at::kFloat) * 0.37).sin().view({2, 5, 8}); }

// Biases start at zero: other values, so that a missing one shows.
Leaves build(Arena& arena) {
  arena.build(1, at::kCPU);
  Leaves leaves;
  for (std::size_t i = 0; i < arena.parameters().size(); ++i) {
    const auto& leaf = arena.leaf(static_cast<int64_t>(i));
    if (leaf.dim() == 1) {
      leaf.detach().add_((at::arange(leaf.numel(), at::kFloat) + static_cast<double>(i)).cos());
    }
    leaves[arena.parameters()[i].name] = leaf;
  }
  return leaves;
}

// The output, and the gradients of input and parameters: through autograd and added directly.
void expect_plain(Arena& arena, const Leaves& leaves, const Layer& layer, const Plain& plain,
                  const ops::Positions& positions = {}) {
  const auto gradients = [&](const at::Tensor& x, const at::Tensor& y) {
    for (const auto& [name, leaf] : leaves) leaf.mutable_grad() = at::Tensor();
    torch::autograd::backward({y.mul(y).sum()}, {});
    return x.grad();
  };
  const auto fresh = [] { return input().set_requires_grad(true); };
  const at::Tensor a = fresh(), b = fresh(), c = fresh();
  const at::Tensor expected = plain(a, leaves);
  const at::Tensor dx = gradients(a, expected);
  Leaves wanted;
  for (const auto& [name, leaf] : leaves) wanted[name] = leaf.grad().clone();

  Pass through_autograd{arena, {}, positions};
  const at::Tensor y = layer(b, through_autograd);
  EXPECT_TRUE(at::allclose(y, expected, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(gradients(b, y), dx, 1e-4, 1e-4));
  for (const auto& [name, leaf] : leaves) {
    EXPECT_TRUE(at::allclose(leaf.grad(), wanted[name], 1e-4, 1e-4)) << name;
  }

  at::Tensor(arena.gradients()).zero_();
  Pass added_directly{arena, {at::kFloat, true}, positions};
  const at::Tensor direct = layer(c, added_directly);
  EXPECT_TRUE(at::allclose(gradients(c, direct), dx, 1e-4, 1e-4));
  for (const auto& parameter : arena.parameters()) {
    const at::Tensor grad = arena.gradients().narrow(0, parameter.offset, parameter.size());
    EXPECT_TRUE(at::allclose(grad.view(parameter.sizes), wanted[parameter.name], 1e-4, 1e-4))
        << parameter.name << " added directly";
    EXPECT_FALSE(leaves.at(parameter.name).grad().defined()) << parameter.name;
  }
}

TEST(Layers, LinearWithSeveralOutputs) {
  for (const bool bias : {false, true}) {
    Arena arena;
    const Linear layer(arena, 8, {{"a", 3, kStd}, {"b", 6, kStd}}, bias);
    const Leaves leaves = build(arena);
    EXPECT_EQ(leaves.size(), bias ? 4u : 2u);
    expect_plain(
        arena, leaves, [&](const at::Tensor& x, Pass& pass) { return layer.forward(x, pass); },
        [&](const at::Tensor& x, const Leaves& p) {
          const auto part = [&](const std::string& name) {
            const at::Tensor y = at::linear(x, p.at(name + ".weight"));
            return bias ? y + p.at(name + ".bias") : y;
          };
          return at::cat({part("a"), part("b")}, -1);
        });
  }
}

TEST(Layers, Norms) {
  for (const bool layer_norm : {false, true}) {
    Arena arena;
    const Norm layer(arena, "norm", 8, layer_norm, 1e-4);
    const Leaves leaves = build(arena);
    EXPECT_EQ(leaves.count("norm.bias"), layer_norm ? 1u : 0u);
    expect_plain(
        arena, leaves, [&](const at::Tensor& x, Pass& pass) { return layer.forward(x, pass); },
        [&](const at::Tensor& x, const Leaves& p) {
          return layer_norm ? reference::layer_norm(x, p.at("norm.weight"), p.at("norm.bias"), 1e-4)
                            : reference::rms_norm(x, p.at("norm.weight"), 1e-4);
        });
  }
}

// A layer that reads the norm of a stream whose sum is not made yet: here half of x and half of it.
template <class L>
Layer of_stream(const L& layer, const Norm& norm) {
  return [&](const at::Tensor& x, Pass& pass) {
    Stream stream{x * 0.5, x * 0.5};
    const at::Tensor change = layer.forward(stream, norm, pass);
    EXPECT_FALSE(stream.change.defined());
    return stream.x + change;
  };
}

Plain plain_of_stream(const Plain& plain) {
  return [=](const at::Tensor& x, const Leaves& p) {
    return x + plain(reference::rms_norm(x, p.at("norm.weight"), 1e-4), p);
  };
}

TEST(Layers, AttentionWithGroupedHeads) {
  const at::Tensor angle = at::arange(12, at::kFloat).view({6, 2}) * 0.4;
  for (const bool bias : {false, true}) {
    const ops::AttentionShape shape{4, 2, 4};
    const ops::Positions positions{{}, angle.cos(), angle.sin()};
    Arena arena;
    const Attention layer(arena, "attn", {8, shape, bias, bias, kStd, kStd / 2});
    const Norm norm(arena, "norm", 8, false, 1e-4);
    const Leaves leaves = build(arena);
    EXPECT_EQ(leaves.at("attn.q_proj.weight").size(0), 16);
    EXPECT_EQ(leaves.at("attn.v_proj.weight").size(0), 8);
    expect_plain(arena, leaves, of_stream(layer, norm),
                 plain_of_stream([&](const at::Tensor& x, const Leaves& p) {
                   const auto part = [&](const at::Tensor& of, const std::string& name) {
                     const at::Tensor y = at::linear(of, p.at("attn." + name + "_proj.weight"));
                     return bias ? y + p.at("attn." + name + "_proj.bias") : y;
                   };
                   const at::Tensor qkv = at::cat({part(x, "q"), part(x, "k"), part(x, "v")}, -1);
                   return part(reference::attention(qkv, shape, positions), "o");
                 }),
                 positions);
  }
}

TEST(Layers, MlpOfEveryActivation) {
  for (const std::string activation : {"swiglu", "gelu", "gelu_tanh"}) {
    for (const bool bias : {false, true}) {
      SCOPED_TRACE(activation);
      Arena arena;
      const Mlp layer(arena, "mlp", {8, 12, activation, bias, kStd, kStd / 2});
      const Norm norm(arena, "norm", 8, false, 1e-4);
      const Leaves leaves = build(arena);
      EXPECT_EQ(leaves.count("mlp.gate_proj.weight"), activation == "swiglu" ? 1u : 0u);
      expect_plain(arena, leaves, of_stream(layer, norm),
                   plain_of_stream([&](const at::Tensor& x, const Leaves& p) {
                     const auto part = [&](const at::Tensor& of, const std::string& name) {
                       const at::Tensor y = at::linear(of, p.at("mlp." + name + "_proj.weight"));
                       return bias ? y + p.at("mlp." + name + "_proj.bias") : y;
                     };
                     const at::Tensor up = part(x, "up");
                     const at::Tensor inner =
                         activation == "swiglu"
                             ? reference::swiglu(at::cat({part(x, "gate"), up}, -1))
                             : reference::gelu(up, activation == "gelu_tanh");
                     return part(inner, "down");
                   }));
    }
  }
}

}  // namespace
}  // namespace omnima::nn
