#include "omnima/nn/moe.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"

namespace omnima::nn {

Moe::Moe(Arena& arena, const std::string& name, const Options& options)
    : chosen_(options.chosen),
      normalise_(options.normalise),
      shares_(options.shared_size > 0),
      capacity_(options.capacity),
      activation_(ops::activation_of(options.expert.activation)) {
  router_ = arena.add({name + ".gate.weight",
                       {options.experts, options.expert.hidden_size},
                       options.expert.init_std});
  for (int64_t i = 0; i < options.experts; ++i) {
    experts_.emplace_back(arena, name + ".experts." + std::to_string(i), options.expert);
  }
  if (!shares_) return;
  Mlp::Options shared = options.expert;
  shared.intermediate_size = options.shared_size;
  shared_ = Mlp(arena, name + ".shared_expert", shared);
}

// 0: any number.
int64_t Moe::most_rows(int64_t rows, const Pass& pass) const {
  if (!pass.training || capacity_ == 0) return 0;
  const double even = static_cast<double>(rows * chosen_) / static_cast<double>(experts_.size());
  return static_cast<int64_t>(std::ceil(capacity_ * even));
}

at::Tensor Moe::one_by_one(const at::Tensor& x, const ops::Routes& routes, const Pass& pass) const {
  at::Tensor sum = at::zeros_like(x);
  for (std::size_t i = 0; i < experts_.size(); ++i) {
    const at::Tensor comes = routes.experts.eq(static_cast<int64_t>(i));  // [rows, chosen]
    const at::Tensor rows = comes.nonzero().select(1, 0);
    if (rows.numel() == 0) continue;
    const at::Tensor made = experts_[i].forward(x.index_select(0, rows), pass);
    const at::Tensor share = routes.weights.masked_select(comes).unsqueeze(1);
    sum = sum.index_add(0, rows, made.mul(share));
  }
  return sum;
}

at::Tensor Moe::forward(Stream& stream, const Norm& norm, Pass& pass) const {
  const at::Tensor normed = norm.forward(stream.settle(), pass);
  const at::Tensor x = normed.reshape({-1, normed.size(-1)});
  Compute exactly = pass.compute;  // the router decides in float32 whatever the products are in
  exactly.dtype = at::kFloat;
  const ops::Routes routes =
      ops::route(x, pass.arena.weight(router_, exactly), {chosen_, normalise_, pass.training});
  if (routes.losses.defined()) {
    ++pass.routers;
    stream.losses = stream.losses.defined() ? stream.losses.add(routes.losses) : routes.losses;
  }
  std::vector<ops::ExpertWeights> weights;
  for (const auto& expert : experts_) weights.push_back(expert.weights(pass));
  const bool adapted = pass.adapters != nullptr &&
                       std::any_of(experts_.begin(), experts_.end(),
                                   [&](const Mlp& each) { return each.has_adapters(pass); });
  core::require<core::ConfigError>(!adapted || most_rows(x.size(0), pass) == 0,
                                   "Adapters of experts learn with expert_capacity 0 alone.");
  at::Tensor y = pass.observer != nullptr || adapted
                     ? one_by_one(x, routes, pass)
                     : ops::experts(x, routes, weights, activation_, most_rows(x.size(0), pass));
  if (shares_) y = y.add(shared_.forward(x, pass));
  return y.view(normed.sizes());
}

}  // namespace omnima::nn
