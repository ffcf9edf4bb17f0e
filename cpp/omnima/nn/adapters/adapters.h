// The adapters of a model: which there are, which are in use and how much each counts. Using others
// moves no numbers.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "omnima/nn/adapters/adapter.h"
#include "omnima/nn/pass.h"

namespace omnima::nn {

class Adapters {
 public:
  // The part of the base's linear layers that `modules`, named as in its arena, are together.
  static Site find_site(const Arena& base, const std::string& name,
                        const std::vector<std::string>& modules);

  // Puts an adapter beside the others; the base learns no longer.
  void add(Arena& base, const std::string& name, std::shared_ptr<Adapter> adapter);
  // The base learns again when the last one is gone.
  void remove(Arena& base, const std::string& name);
  // Uses exactly these, each as often as it counts.
  void use(const std::map<std::string, double>& weights);

  bool empty() const { return all_.empty(); }
  std::vector<std::string> names() const;
  const std::shared_ptr<Adapter>& get(const std::string& name) const;
  const std::map<std::string, double>& used() const { return used_; }
  // The one that learns: the only one in use, counted once; null: none does.
  std::shared_ptr<Adapter> learning() const;

  void prepare(const Arena& base, at::ScalarType type);
  ops::Adapted of(Slot layer, const Pass& pass) const;
  // Whether all that the adapters in use change can be merged into weights and biases.
  bool merge() const;
  // What these adapters, each as often as it counts, make of the base. Refers to their parameters,
  // but for what is made of them anew here.
  ops::AdaptedModel beside(const Arena& base, const std::map<std::string, double>& weights) const;
  // Whether an adapter stands behind a layer, and what it makes of its outputs.
  bool follow(Slot layer) const;
  at::Tensor behind(Slot layer, const at::Tensor& y, const Pass& pass) const;
  // The head of a reward model that the adapter in use has learned; without leaves: it has none.
  ops::Weight score(const Compute& compute) const;
  // Of the adapter in use; 0: there are none.
  std::int64_t virtual_tokens() const;
  // The stream x [batch, time, hidden] with the virtual tokens' embeddings in their places.
  at::Tensor with_embeddings(const at::Tensor& x, const Pass& pass) const;
  // qkv [batch, time, queries then keys then values] of a projection with the virtual tokens' keys
  // and values in their places; keys before they are turned by `positions`.
  at::Tensor with_keys_values(const at::Tensor& qkv, Slot layer, const ops::AttentionShape& shape,
                              const ops::Positions& positions, const Pass& pass) const;
  // Names and new values of the base's parameters with what is in use merged into them, and of
  // biases that it has none of, where an adapter has.
  std::vector<std::pair<std::string, at::Tensor>> merged(const Arena& base) const;

 private:
  using Counted = std::vector<std::pair<Adapter*, double>>;
  // Refuses what cannot be used together.
  Counted counted(const std::map<std::string, double>& weights) const;

  std::map<std::string, std::shared_ptr<Adapter>> all_;
  std::map<std::string, double> used_;
  Counted active_;
};

}  // namespace omnima::nn
