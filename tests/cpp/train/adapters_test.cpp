// Adapters of every kind at a small model: their gradients are the slopes of the loss, the base
// rests, and what is merged computes the same.
#include "omnima/nn/adapters/adapters.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "step_fixture.h"

namespace omnima::train {
namespace {

nn::Site site(const Decoder& model, const std::string& name, std::int64_t rank,
              bool feeds_forward = false) {
  nn::Site found = nn::Adapters::find_site(model.arena(), name, {name});
  found.rank = rank;
  found.scale = 0.7;
  found.feeds_forward = feeds_forward;
  return found;
}

std::vector<nn::Site> sites_for(const Decoder& model, const std::string& kind) {
  std::vector<nn::Site> sites;
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    if (kind == "prompt") break;
    if (kind == "prefix") {
      sites.push_back(site(model, layer + "self_attn.k_proj", 0));
      continue;
    }
    if (kind == "bottleneck") {
      sites.push_back(site(model, layer + "mlp.down_proj", 4));
      continue;
    }
    sites.push_back(site(model, layer + "self_attn.v_proj", 4));
    sites.push_back(site(model, layer + "mlp.down_proj", 4, kind == "ia3"));
  }
  return sites;
}

std::shared_ptr<nn::Adapter> attached(Decoder& model, nn::AdapterOptions options) {
  auto adapter = nn::make_adapter(model.arena(), sites_for(model, options.kind), options);
  model.adapters().add(model.arena(), "a", adapter);
  model.adapters().use({{"a", 1.0}});
  return adapter;
}

nn::AdapterOptions options_of(const std::string& kind) {
  nn::AdapterOptions options;
  options.kind = kind;
  options.seed = 3;
  options.budget.rank = 2;
  options.virtual_tokens = kind == "prompt" || kind == "prefix" ? 3 : 0;
  return options;
}

// Away from the values at which many kinds begin, where they change nothing.
void move(nn::Arena& arena) {
  at::NoGradGuard none;
  arena.weights().add_(at::randn(arena.weights().sizes(), arena.weights().options()), 0.05);
}

struct Tensors {
  at::Tensor ids, labels;
};

Tensors some_tensors() {
  const auto batch = some_batch(2, 8, 3);
  const auto rows = [&](const std::vector<std::int64_t>& x) {
    return at::tensor(x, at::kLong).view({2, 8});
  };
  return {rows(batch.input_ids), rows(batch.labels)};
}

TEST(Adapters, GradientsAreTheSlopesOfTheLoss) {
  for (const std::string& kind : nn::adapter_kinds()) {
    const auto model = small();
    const auto adapter = attached(*model, options_of(kind));
    move(adapter->arena());
    const auto [ids, labels] = some_tensors();
    const auto loss = [&] { return model->loss(ids, labels, {}).item<double>(); };
    const at::Tensor before = model->arena().weights().clone();
    adapter->arena().zero_gradients(1);
    models::Decoder::LossOptions how;
    how.compute.direct_gradients = true;
    how.scale = 1.0 / 13;
    torch::autograd::backward(model->losses(ids, labels, {}, how).roots(), {});
    const at::Tensor gradient = adapter->arena().gradients().clone();
    at::NoGradGuard none;
    // Along the gradient itself: the loss rises by its squared length.
    const double squared = gradient.square().sum().item<double>();
    ASSERT_GT(squared, 0.0) << kind;
    const double step = 2e-2 / std::sqrt(squared);
    adapter->arena().weights().add_(gradient, step);
    const double above = loss();
    adapter->arena().weights().sub_(gradient, 2 * step);
    const double below = loss();
    // DoRA takes the length of its rows for a constant (section 4.3 of Liu et al. 2024).
    const double share = kind == "dora" ? 0.05 : 0.01;
    EXPECT_NEAR((above - below) / (2 * step), squared, share * squared) << kind;
    EXPECT_TRUE(at::equal(model->arena().weights(), before)) << kind;
  }
}

TEST(Adapters, StepsLearnInEveryPrecisionAndTheBaseRests) {
  for (const std::string& kind : nn::adapter_kinds()) {
    for (const char* precision : {"fp32", "bf16"}) {
      const auto model = small();
      const auto adapter = attached(*model, options_of(kind));
      const at::Tensor base = model->arena().weights().clone();
      StepOptions options;
      options.precision = precision;
      options.total_steps = 40;
      options.lr = kind == "prompt" || kind == "prefix" || kind == "vera" ? 0.1 : 0.02;
      TrainStep step(model, options);
      const auto batch = some_batch(2, 8, 3);
      const double first = step.run_batches({batch}).loss;
      double last = first;
      for (int i = 1; i < 30; ++i) last = step.run_batches({batch}).loss;
      EXPECT_LT(last, 0.998 * first) << kind << " in " << precision;
      EXPECT_TRUE(at::equal(model->arena().weights(), base)) << kind;
    }
  }
}

TEST(Adapters, WhatIsMergedComputesTheSame) {
  const auto [ids, labels] = some_tensors();
  for (const std::string& kind : nn::adapter_kinds()) {
    const auto model = small(5, {{"attention_bias", true}, {"mlp_bias", true}});
    const auto adapter = attached(*model, options_of(kind));
    if (!adapter->merges()) continue;
    move(adapter->arena());
    const at::Tensor beside = model->logits(ids);
    const auto twin = small(5, {{"attention_bias", true}, {"mlp_bias", true}});
    {
      at::NoGradGuard none;
      const auto merged = model->adapters().merged(model->arena());
      EXPECT_FALSE(merged.empty()) << kind;
      for (const auto& [name, value] : merged) {
        const auto& parameters = twin->arena().parameters();
        for (std::size_t i = 0; i < parameters.size(); ++i) {
          if (parameters[i].name == name) {
            twin->arena().leaf(static_cast<std::int64_t>(i)).detach().copy_(value);
          }
        }
      }
    }
    EXPECT_LT((twin->logits(ids) - beside).abs().max().item<double>(), 1e-4) << kind;
  }
}

TEST(Adapters, SeveralCountAsTheyAreWeighedAndNoneLeavesTheBase) {
  const auto [ids, labels] = some_tensors();
  const auto model = small();
  const at::Tensor bare = model->logits(ids);
  const auto adapter = attached(*model, options_of("lora"));
  move(adapter->arena());
  const at::Tensor once = model->logits(ids);
  EXPECT_GT((once - bare).abs().max().item<double>(), 1e-4);
  model->adapters().use({});
  EXPECT_TRUE(at::equal(model->logits(ids), bare));
  EXPECT_THROW(model->adapters().use({{"b", 1.0}}), core::ConfigError);
  model->adapters().remove(model->arena(), "a");
  EXPECT_TRUE(model->adapters().empty() && model->arena().learns());
}

TEST(Adapters, WhatDoesNotFitIsRefused) {
  const auto model = small();
  const nn::Arena& base = model->arena();
  nn::AdapterOptions options = options_of("loras");
  EXPECT_THROW(nn::make_adapter(base, {}, options), core::ConfigError);
  options.kind = "lora";
  EXPECT_THROW(nn::make_adapter(base, {}, options), core::ConfigError);
  EXPECT_THROW(nn::Adapters::find_site(base, "x", {"model.layers.7.mlp.up_proj"}),
               core::ConfigError);
  EXPECT_THROW(nn::Adapters::find_site(base, "x", {}), core::ConfigError);
  options.budget.initial_share = 0.8;
  EXPECT_THROW(nn::make_adapter(base, sites_for(*model, "lora"), options), core::ConfigError);
}

}  // namespace
}  // namespace omnima::train
