#include "omnima/nn/adapters/adalora.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "omnima/core/error.h"
#include "omnima/nn/adapters/initial.h"

namespace omnima::nn {
namespace {

constexpr double kSpread = 0.02;

}  // namespace

AdaLora::AdaLora(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Lora(base, std::move(sites), options, Unbuilt{}) {
  core::require<core::ConfigError>(!starts_from_base(options.init) && options.init != "gaussian",
                                   "AdaLoRA has an initialisation of its own, not init ",
                                   options.init, ".");
  for (const Site& site : sites_) {
    values_.push_back(arena_.add({site.name + ".lora_E", {site.rank}}));
    all_ += site.rank;
  }
  build(base);
  auto generator = at::detail::createCPUGenerator(options.seed);
  for (const auto& slots : {downs_, ups_}) {
    for (const Slot slot : slots) {
      const at::Tensor own = arena_.values(slot);
      own.copy_(at::empty(own.sizes(), at::kFloat).normal_(0.0, kSpread, generator));
    }
  }
  importance_ = at::zeros_like(arena_.weights());
  uncertainty_ = at::zeros_like(arena_.weights());
  kept_ = at::ones({all_}, arena_.weights().options());
}

std::vector<std::pair<std::string, at::Tensor>> AdaLora::constants() const {
  return {{"importance", importance_}, {"uncertainty", uncertainty_}, {"kept", kept_}};
}

void AdaLora::adapt(Slot slot, const Compute& compute, double weight, std::uint64_t dropout_seed,
                    ops::Adapted& adapted) const {
  const auto found = layers_.find(slot.first);
  if (found == layers_.end()) return;
  Lora::adapt(slot, compute, weight, dropout_seed, adapted);
  auto& parts = adapted.products.back().parts;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i].inner = arena_.weight(values_[found->second.sites[i]], compute);
  }
}

void AdaLora::merge(std::size_t site, double weight, const SiteWeights& into) const {
  const auto [down, up] = factors(site);
  at::Tensor(into.weight)
      .addmm_(up.mul(arena_.values(values_[site])), down, 1, weight * sites_[site].scale);
}

// The mean over all A and B of |P P^T - 1| (equation 4), whose gradient by P is 2 (P P^T - 1) P
// over the norm.
double AdaLora::add_penalty() {
  if (options_.budget.orthogonality == 0) return 0;
  const c10::AutoGradMode unrecorded(false);
  const double share = options_.budget.orthogonality / static_cast<double>(2 * sites_.size());
  const at::Tensor& gradients = arena_.gradients();
  double total = 0;
  const auto add = [&](Slot slot, bool by_columns) {
    const at::Tensor own = arena_.values(slot);
    const at::Tensor rows = by_columns ? own.t() : own;
    const at::Tensor off = rows.matmul(rows.t()).sub_(at::eye(rows.size(0), own.options()));
    const double length = off.norm().item<double>();
    total += share * length;
    if (length == 0) return;
    const at::Tensor change = off.matmul(rows).mul_(2 * share / length);
    const Parameter& parameter = arena_.parameters()[static_cast<std::size_t>(slot.first)];
    gradients.narrow(0, parameter.offset, parameter.size())
        .view(own.sizes())
        .add_(by_columns ? change.t() : change);
  };
  for (const Slot slot : downs_) add(slot, false);
  for (const Slot slot : ups_) add(slot, true);
  return total;
}

AdaLora::Phases AdaLora::phases(std::int64_t total) const {
  const auto steps = [&](double share) {
    return static_cast<std::int64_t>(std::llround(share * static_cast<double>(total)));
  };
  return {steps(options_.budget.initial_share), total - steps(options_.budget.final_share)};
}

std::int64_t AdaLora::budget_at(std::int64_t step, const Phases& phases) const {
  const auto target = options_.budget.rank * std::ssize(sites_);
  if (step <= phases.first) return all_;
  if (step >= phases.last) return target;
  const double left = 1 - static_cast<double>(step - phases.first) /
                              static_cast<double>(phases.last - phases.first);
  return static_cast<std::int64_t>(static_cast<double>(all_ - target) * left * left * left +
                                   static_cast<double>(target));
}

void AdaLora::after_update(const Update& update) {
  if (update.total == 0) return;
  const c10::AutoGradMode unrecorded(false);
  const Phases phases = this->phases(update.total);
  if (update.step < phases.last) {
    learn_importance(update.gradient_scale);
    if (update.step % options_.budget.every == 0) keep(budget_at(update.step, phases));
    return;
  }
  if (update.step == phases.last) keep(budget_at(update.step, phases));
  give_up();  // what is not kept stays zero
}

// Equations 8 to 10: the product of weight and gradient, its running mean, and that of how far it
// is off.
void AdaLora::learn_importance(double gradient_scale) {
  const auto& budget = options_.budget;
  const at::Tensor now =
      arena_.weights().detach().mul(arena_.gradients()).mul_(gradient_scale).abs_();
  importance_.mul_(budget.beta1).add_(now, 1 - budget.beta1);
  uncertainty_.mul_(budget.beta2).add_(now.sub_(importance_).abs_(), 1 - budget.beta2);
}

at::Tensor AdaLora::scores() const {
  const auto of = [&](Slot slot) {
    const Parameter& parameter = arena_.parameters()[static_cast<std::size_t>(slot.first)];
    const auto part = [&](const at::Tensor& flat) {
      return flat.narrow(0, parameter.offset, parameter.size()).view(parameter.sizes);
    };
    return part(importance_).mul(part(uncertainty_));
  };
  std::vector<at::Tensor> all;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    all.push_back(of(values_[i]).add(of(downs_[i]).mean(1)).add(of(ups_[i]).mean(0)));
  }
  return at::cat(all);
}

void AdaLora::keep(std::int64_t budget) {
  const std::int64_t gone = all_ - budget;
  if (gone <= 0) return;
  const at::Tensor scores = this->scores();
  const at::Tensor threshold = std::get<0>(scores.kthvalue(gone));
  kept_.copy_(scores.gt(threshold));
  give_up();
}

void AdaLora::give_up() {
  std::int64_t first = 0;
  for (std::size_t i = 0; i < values_.size(); first += sites_[i++].rank) {
    at::Tensor(arena_.values(values_[i]))
        .masked_fill_(kept_.narrow(0, first, sites_[i].rank).eq(0), 0.0);
  }
}

}  // namespace omnima::nn
