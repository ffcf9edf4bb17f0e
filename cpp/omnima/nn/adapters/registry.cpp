// The kinds of adapters by name: a new one is a line here.
#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/nn/adapters/adalora.h"
#include "omnima/nn/adapters/bitfit.h"
#include "omnima/nn/adapters/bottleneck.h"
#include "omnima/nn/adapters/dora.h"
#include "omnima/nn/adapters/ia3.h"
#include "omnima/nn/adapters/lora.h"
#include "omnima/nn/adapters/vera.h"
#include "omnima/nn/adapters/virtual_tokens.h"

namespace omnima::nn {
namespace {

struct Entry {
  const char* name;
  std::shared_ptr<Adapter> (*make)(const Arena&, std::vector<Site>, const AdapterOptions&);
  bool has_sites = true;
};

template <class T>
std::shared_ptr<Adapter> make(const Arena& base, std::vector<Site> sites,
                              const AdapterOptions& options) {
  return std::make_shared<T>(base, std::move(sites), options);
}

constexpr Entry kKinds[] = {
    // clang-format off
    {"lora", make<Lora>},
    {"dora", make<Dora>},
    {"ia3", make<Ia3>},
    {"bitfit", make<BitFit>},
    {"vera", make<Vera>},
    {"adalora", make<AdaLora>},
    {"bottleneck", make<Bottleneck>},
    {"prompt", make<Prompt>, false},
    {"prefix", make<Prefix>},
    // clang-format on
};

}  // namespace

void Adapter::build(const Arena& base) {
  const auto& parameters = base.parameters();
  const auto found = std::find_if(parameters.begin(), parameters.end(), [](const Parameter& each) {
    return each.name == "score.weight";
  });
  if (found != parameters.end()) score_ = arena_.add({found->name, found->sizes});
  arena_.build(options_.seed, base.weights().device());
  if (score_.count > 0) {
    arena_.values(score_).copy_(base.values({found - parameters.begin(), 1}));
  }
}

void Adapter::prepare(const Arena&, at::ScalarType type) {
  if (type != at::kFloat) arena_.shadow(type);
}

void RankBudget::check() const {
  core::check_field({"budget.rank", std::int64_t{8}, "of a layer in the end", 0, 1 << 16}, rank);
  core::check_field({"budget.initial_share", 0.1, "of steps before it moves", 0, 1}, initial_share);
  core::check_field({"budget.final_share", 0.3, "of steps after it moved", 0, 1}, final_share);
  core::require<core::ConfigError>(
      initial_share + final_share < 1, "Before and after the budget moves lie ", initial_share,
      " and ", final_share, " of the steps: together they must be less than 1.");
  core::check_field({"budget.every", std::int64_t{10}, "steps it moves", 1, 1e12}, every);
  core::check_field({"budget.orthogonality", 0.5, "weight of the penalty", 0, 1e6}, orthogonality);
  core::check_field({"budget.beta1", 0.85, "of the mean importance", 0, 0.999999}, beta1);
  core::check_field({"budget.beta2", 0.85, "of the mean uncertainty", 0, 0.999999}, beta2);
}

void Adapter::merge(std::size_t, double, const SiteWeights&) const {
  throw core::ConfigError("An adapter of kind " + options_.kind +
                          " is no part of any weights: it stays beside the model.");
}

std::vector<std::string> adapter_kinds() {
  std::vector<std::string> names;
  for (const auto& entry : kKinds) names.emplace_back(entry.name);
  return names;
}

std::shared_ptr<Adapter> make_adapter(const Arena& base, std::vector<Site> sites,
                                      const AdapterOptions& options) {
  core::check_field({"kind", std::string("lora"), "of an adapter", 0, 0, adapter_kinds()},
                    options.kind);
  core::check_field({"dropout", 0.0, "of what an adapter reads", 0, 0.999999}, options.dropout);
  options.budget.check();
  for (const auto& entry : kKinds) {
    if (options.kind != entry.name) continue;
    core::require<core::ConfigError>(!sites.empty() || !entry.has_sites,
                                     "An adapter must stand somewhere: give sites.");
    return entry.make(base, std::move(sites), options);
  }
  return nullptr;
}

}  // namespace omnima::nn
