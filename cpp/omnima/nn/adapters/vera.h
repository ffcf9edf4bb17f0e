// VeRA (Kopiczko et al. 2023, "VeRA: Vector-based Random Matrix Adaptation", arXiv 2310.11454):
// y = x W^T + b + v ((d (x A^T)) B^T). A and B are random, rest, and are shared by all layers,
// each of which takes as many of their columns and rows as it has inputs and outputs; the vectors d
// [rank] and v [out] learn.
#pragma once

#include <map>
#include <vector>

#include "omnima/nn/adapters/adapter.h"

namespace omnima::nn {

class Vera : public Adapter {
 public:
  Vera(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  std::vector<std::pair<std::string, at::Tensor>> constants() const override;
  void prepare(const Arena& base, at::ScalarType type) override;
  void adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
             ops::Adapted& adapted) const override;
  void merge(std::size_t site, double weight, const SiteWeights& into) const override;

 private:
  // B of a site, its rows as ours lie: float32 [rows, rank].
  at::Tensor up(const Site& site) const;
  at::Tensor down(const Site& site) const;  // float32 [rank, inputs]

  at::Tensor down_, up_;             // A [rank, most inputs], B [most outputs, rank], float32
  std::vector<Slot> inner_, outer_;  // d and v, by site
  // Parts of A and B as products read them, in a number format: by their sizes, or by the site
  // where a file has its rows in another order.
  struct Ready {
    at::ScalarType type = at::kFloat;
    std::int64_t version = -1;
    std::map<std::int64_t, at::Tensor> downs;  // by inputs
    std::vector<at::Tensor> ups;               // by site
  };
  Ready ready_;
};

}  // namespace omnima::nn
