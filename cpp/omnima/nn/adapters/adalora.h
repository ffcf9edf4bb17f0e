// AdaLoRA (Zhang et al. 2023, "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
// arXiv 2303.10512): y = x W^T + b + scale ((e (x A^T)) B^T), where a penalty keeps the rows of A
// and the columns of B orthonormal. While training goes on, the least important of the numbers e of
// all layers are set to zero, until the budget is left (algorithm 1 there).
#pragma once

#include "omnima/nn/adapters/lora.h"

namespace omnima::nn {

class AdaLora : public Lora {
 public:
  AdaLora(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  // What the importance of parameters is made of, and which numbers are left.
  std::vector<std::pair<std::string, at::Tensor>> constants() const override;
  void adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
             ops::Adapted& adapted) const override;
  void merge(std::size_t site, double weight, const SiteWeights& into) const override;
  double add_penalty() override;
  void after_update(const Update& update) override;

 private:
  // The last step before the budget moves, and the one when it has moved.
  struct Phases {
    std::int64_t first, last;
  };
  Phases phases(std::int64_t total) const;
  // How many numbers are left after a step.
  std::int64_t budget_at(std::int64_t step, const Phases& phases) const;
  void learn_importance(double gradient_scale);
  // Of every number e, those of a site one behind the other: float32 [all].
  at::Tensor scores() const;
  void keep(std::int64_t budget);
  void give_up();  // sets the others to zero

  std::vector<Slot> values_;             // e, by site
  std::int64_t all_ = 0;                 // numbers e
  at::Tensor importance_, uncertainty_;  // running means, laid out as the arena
  at::Tensor kept_;                      // 1 or 0 for each number e, float32
};

}  // namespace omnima::nn
