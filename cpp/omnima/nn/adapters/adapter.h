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
};

struct AdapterOptions {
  std::string kind = "lora";
  std::string init = "default";  // default | gaussian | pissa | olora
  double dropout = 0.0;          // of what the added products read, in training
  double up_rate = 1.0;          // LoRA+: B's learning rate by A's
  std::uint64_t seed = 0;        // of the initial values
};

// Parameters of the base in float32 that an adapter is merged into: a site's rows.
struct SiteWeights {
  at::Tensor weight;  // [rows, in]
  at::Tensor bias;    // [rows], or undefined
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
  // Adds what it makes of a layer to `adapted`, counted `weight` times. dropout_seed: 0 outside
  // training.
  virtual void adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
                     ops::Adapted& adapted) const = 0;
  // Makes the change part of the site's weights.
  virtual void merge(std::size_t site, double weight, const SiteWeights& into) const = 0;
  // Whether it can count other than once, and beside others on the same layers.
  virtual bool combines() const { return true; }

 protected:
  Arena arena_;
  std::vector<Site> sites_;
  AdapterOptions options_;
};

std::vector<std::string> adapter_kinds();
// Throws core::ConfigError for what the registry does not have.
std::shared_ptr<Adapter> make_adapter(const Arena& base, std::vector<Site> sites,
                                      const AdapterOptions& options);

}  // namespace omnima::nn
