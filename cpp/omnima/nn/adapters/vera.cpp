#include "omnima/nn/adapters/vera.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"

namespace omnima::nn {
namespace {

constexpr double kFirstInner = 0.1;

// Uniform as Kaiming et al. 2015 draw weights before a ReLU.
at::Tensor drawn(std::int64_t rows, std::int64_t columns, at::Generator& generator) {
  const double spread = std::sqrt(2.0) / std::sqrt(static_cast<double>(columns));
  const double bound = std::sqrt(3.0) * spread;
  return at::empty({rows, columns}, at::kFloat).uniform_(-bound, bound, generator);
}

}  // namespace

Vera::Vera(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Adapter(std::move(sites), options) {
  std::int64_t inputs = 0, outputs = 0;
  const std::int64_t rank = sites_[0].rank;
  for (const Site& site : sites_) {
    core::require<core::ConfigError>(site.rank == rank && rank > 0,
                                     "VeRA's layers share a rank of "
                                     "at least 1, but \"",
                                     site.name, "\" has ", site.rank, ".");
    inputs = std::max(inputs, site.inputs);
    outputs = std::max(outputs, site.rows);
    inner_.push_back(arena_.add({site.name + ".vera_lambda_d", {rank}, 0.0, kFirstInner}));
    outer_.push_back(arena_.add({site.name + ".vera_lambda_b", {site.rows}}));
  }
  const at::Device device = base.weights().device();
  build(base);
  // Drawn on the CPU, A first: a seed gives the same values on every device and in other tools.
  auto generator = at::detail::createCPUGenerator(options.seed);
  down_ = drawn(rank, inputs, generator).to(device);
  up_ = drawn(outputs, rank, generator).to(device);
}

std::vector<std::pair<std::string, at::Tensor>> Vera::constants() const {
  return {{"vera_A", down_}, {"vera_B", up_}};
}

at::Tensor Vera::down(const Site& site) const { return down_.narrow(1, 0, site.inputs); }

at::Tensor Vera::up(const Site& site) const {
  const at::Tensor rows = up_.narrow(0, 0, site.rows);
  if (site.order.empty()) return rows;
  return rows.index_select(0, at::tensor(site.order, at::kLong).to(up_.device()));
}

void Vera::prepare(const Arena& base, at::ScalarType type) {
  Adapter::prepare(base, type);
  const auto version = static_cast<std::int64_t>(down_._version() + up_._version());
  if (ready_.version == version && ready_.type == type) return;
  Ready ready{type, version, {}, {}};
  for (const Site& site : sites_) {
    at::Tensor& low = ready.downs[site.inputs];
    if (!low.defined()) low = down(site).to(type).contiguous();
    ready.ups.push_back(up(site).to(type));
  }
  // Layers of as many outputs share a copy.
  for (std::size_t i = 0; type != at::kFloat && i < sites_.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const bool same = sites_[i].rows == sites_[j].rows && sites_[i].order == sites_[j].order;
      if (same) ready.ups[i] = ready.ups[j];
    }
  }
  ready_ = std::move(ready);
}

void Vera::adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
                 ops::Adapted& adapted) const {
  ops::LowRank product;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const Site& site = sites_[i];
    if (site.layer.first != layer.first) continue;
    product.down.compute = ready_.downs.at(site.inputs);
    product.parts.push_back({site.first,
                             site.rows,
                             0,
                             site.rank,
                             {{}, ready_.ups[i]},
                             weight,
                             arena_.weight(inner_[i], compute),
                             arena_.weight(outer_[i], compute)});
  }
  if (product.parts.empty()) return;
  product.dropout = dropout_seed == 0 ? 0.0 : options_.dropout;
  product.seed = dropout_seed;
  adapted.products.push_back(std::move(product));
}

void Vera::merge(std::size_t index, double weight, const SiteWeights& into) const {
  const Site& site = sites_[index];
  const at::Tensor left = up(site).mul(arena_.values(outer_[index]).unsqueeze(1));
  const at::Tensor right = down(site).mul(arena_.values(inner_[index]).unsqueeze(1));
  at::Tensor(into.weight).addmm_(left, right, 1, weight);
}

}  // namespace omnima::nn
