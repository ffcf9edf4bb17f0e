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
  // Names and new values of the base's parameters with what is in use merged into them.
  std::vector<std::pair<std::string, at::Tensor>> merged(const Arena& base) const;

 private:
  std::map<std::string, std::shared_ptr<Adapter>> all_;
  std::map<std::string, double> used_;
  std::vector<std::pair<Adapter*, double>> active_;
};

}  // namespace omnima::nn
