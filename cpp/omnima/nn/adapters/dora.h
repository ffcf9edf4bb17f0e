// DoRA (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353): LoRA
// whose every output row has a magnitude of its own: W' = m (W + scale B A) / |W + scale B A|. The
// length of the rows counts as a constant in the gradient (section 4.3).
#pragma once

#include "omnima/nn/adapters/lora.h"

namespace omnima::nn {

class Dora : public Lora {
 public:
  Dora(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  void prepare(const Arena& base, at::ScalarType type) override;
  void adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
             ops::Adapted& adapted) const override;
  void merge(std::size_t site, double weight, const SiteWeights& into) const override;
  bool combines() const override { return false; }

 private:
  // |W + scale B A| of each row: float32 [rows].
  at::Tensor lengths(const Arena& base, std::size_t site) const;

  std::vector<Slot> magnitudes_;     // by site
  std::vector<at::Tensor> lengths_;  // as prepare() left them
  std::vector<at::Tensor> squares_;  // |W|^2 of each row of the base as it was
  std::int64_t base_version_ = -1;   // when squares_ were made
};

}  // namespace omnima::nn
