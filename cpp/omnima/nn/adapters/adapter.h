// What every adapter is: parameters in an arena of their own, which change linear layers of a model
// whose own weights rest. A new kind is a file and a line in registry.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "omnima/nn/arena.h"
#include "omnima/ops/adapted.h"

namespace omnima::nn {

// Where an adapter stands: outputs `first` to `first + rows - 1` of a linear layer of the base.
struct Site {
  std::string name;  // of its module, as the model's files call it
  Slot layer;        // its weights in the base's arena
  int64_t first = 0, rows = 0, inputs = 0;
  int64_t rank = 0;            // of what is added, in kinds that have one
  double scale = 1.0;          // by which it counts
  bool feeds_forward = false;  // IA3: it scales the inputs, not the outputs
  // Where the model's files have each of its outputs; empty: where we have it.
  std::vector<int64_t> order{};
};

// AdaLoRA: how many numbers are left, and when.
struct RankBudget {
  std::int64_t rank = 0;              // a layer has in the end, on average
  double initial_share = 0.1;         // of the steps, before the budget moves
  double final_share = 0.3;           // of the steps, after it has
  std::int64_t every = 10;            // steps it moves
  double orthogonality = 0.5;         // weight of the penalty
  double beta1 = 0.85, beta2 = 0.85;  // what the means of importance and uncertainty keep

  void check() const;
};

struct AdapterOptions {
  std::string kind = "lora";
  std::string init = "default";  // default | gaussian | pissa | olora
  double dropout = 0.0;          // of what the added products read, in training
  double up_rate = 1.0;          // LoRA+: B's learning rate by A's
  std::uint64_t seed = 0;        // of the initial values
  RankBudget budget{};
  std::int64_t virtual_tokens = 0;  // prompt and prefix: in front of every document
};

// Parameters of the base in float32 that an adapter is merged into: a site's rows.
struct SiteWeights {
  at::Tensor weight;  // [rows, in]
  at::Tensor bias;    // [rows], or undefined: the layer and the adapter have none
};

class Adapter {
 public:
  Adapter(std::vector<Site> sites, AdapterOptions options)
      : sites_(std::move(sites)), options_(std::move(options)) {}
  virtual ~Adapter() = default;
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;

  const std::vector<Site>& sites() const { return sites_; }
  const AdapterOptions& options() const { return options_; }
  Arena& arena() { return arena_; }
  const Arena& arena() const { return arena_; }
  // What belongs to it but does not learn, by name.
  virtual std::vector<std::pair<std::string, at::Tensor>> constants() const { return {}; }

  // Rules for optim::Groups that come before those of a run.
  virtual std::vector<std::string> rates() const { return {}; }

  // To be called whenever its parameters or those of the base have changed, before passes that
  // compute in `type`.
  virtual void prepare(const Arena& base, at::ScalarType type);
  // adapt(layer, compute, weight, dropout_seed, adapted) adds what it makes of a layer to
  // `adapted`, counted `weight` times. dropout_seed: 0 outside training.
  virtual void adapt(Slot, const Compute&, double, std::uint64_t, ops::Adapted&) const {}
  // Makes the change part of the site's weights.
  virtual void merge(std::size_t site, double weight, const SiteWeights& into) const;
  virtual bool merges() const { return virtual_tokens() == 0; }
  // What adapt() does not say of what it changes.
  virtual void stand_beside(ops::AdaptedModel&) const {}

  // Tokens in front of every document, which no vocabulary has.
  virtual std::int64_t virtual_tokens() const { return 0; }
  // Their embeddings, float32 [tokens, hidden]; undefined: any.
  virtual at::Tensor embeddings(const Compute&) const { return {}; }
  // Their keys and values in the attention with this projection, float32 [tokens, keys then values
  // of all heads]; undefined: as those of other tokens are made.
  virtual at::Tensor keys_values(Slot, const Compute&) const { return {}; }
  // Whether it changes what a layer gives, and what it makes of that, y [..., outputs].
  virtual bool follows(Slot) const { return false; }
  virtual at::Tensor behind(Slot, const at::Tensor& y, const Compute&) const { return y; }

  // Adds the gradient of a penalty to that of the loss, once a step; returns the penalty.
  virtual double add_penalty() { return 0; }
  struct Update {
    std::int64_t step;      // that was done, from 1 on
    std::int64_t total;     // steps of the run; 0: not known
    double gradient_scale;  // by which the gradient in the arena counted
  };
  // To be called when the optimizer has moved the parameters.
  virtual void after_update(const Update&) {}

  // The head of a reward model, which learns with it; without parameters: the base has none.
  Slot score() const { return score_; }
  // Whether it can count other than once, and beside others on the same layers.
  virtual bool combines() const { return score_.count == 0; }
  // Whether its layers have biases of their own, even where those of the base have none.
  virtual bool has_biases() const { return false; }

 protected:
  // Builds the arena once all else is declared: a copy of the base's reward head comes last.
  void build(const Arena& base);

  Arena arena_;
  std::vector<Site> sites_;
  AdapterOptions options_;

 private:
  Slot score_;
};

// The biases of a layer with these weights; without parameters: it has none.
Slot find_bias(const Arena& base, Slot layer);

std::vector<std::string> adapter_kinds();
// Throws core::ConfigError for what the registry does not have.
std::shared_ptr<Adapter> make_adapter(const Arena& base, std::vector<Site> sites,
                                      const AdapterOptions& options);

}  // namespace omnima::nn
