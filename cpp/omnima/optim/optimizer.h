// What every optimizer is: one update of the arena from its gradient, and named state buffers that
// a checkpoint keeps. A new one is a file and a line in registry.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "omnima/nn/arena.h"
#include "omnima/optim/groups.h"
#include "omnima/optim/state_store.h"

namespace omnima::optim {

struct OptimizerOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // on matrices, unless a group says otherwise
  double momentum = 0.95;     // SGD and Muon
  bool nesterov = true;       // SGD and Muon
  bool narrow = false;        // products in bfloat16, where an optimizer has any
  std::vector<std::string> groups{};
  std::vector<std::string> freeze{};
  std::shared_ptr<StateStore> store{};  // of the state; null: beside the weights

  void check() const;
};

using Buffers = std::map<std::string, at::Tensor>;

class Optimizer {
 public:
  Optimizer(nn::Arena& arena, const OptimizerOptions& options)
      : arena_(arena),
        options_((options.check(), options)),
        groups_(arena, options.weight_decay, options.groups, options.freeze),
        store_(options.store ? options.store : state_beside(arena.weights().device())) {}
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // step counts from 1; the gradient counts `grad_scale` times. With `with_shadow` the arena's
  // bfloat16 copy is fresh and may be written in the same pass.
  virtual void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) = 0;
  // The buffers themselves: filling them (StateStore::fill) continues another run.
  virtual Buffers state() const = 0;
  // Whether the weights to evaluate and to save are not those that are trained, and which they are.
  virtual bool averages() const { return false; }
  virtual at::Tensor averaged_weights() const { return {}; }

  const Groups& groups() const { return groups_; }
  StateStore& store() const { return *store_; }

 protected:
  at::Tensor zeros_like_arena() const { return store_->zeros(arena_.size(), at::kFloat); }

  nn::Arena& arena_;
  const OptimizerOptions options_;
  const Groups groups_;
  const std::shared_ptr<StateStore> store_;
};

std::vector<std::string> optimizer_names();
// Throws core::ConfigError for a name that is not in the registry.
std::unique_ptr<Optimizer> make_optimizer(const std::string& name, nn::Arena& arena,
                                          const OptimizerOptions& options);

}  // namespace omnima::optim
