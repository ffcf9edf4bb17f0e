// The kinds of adapters by name: a new one is a line here.
#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/nn/adapters/dora.h"
#include "omnima/nn/adapters/ia3.h"
#include "omnima/nn/adapters/lora.h"

namespace omnima::nn {
namespace {

struct Entry {
  const char* name;
  std::shared_ptr<Adapter> (*make)(const Arena&, std::vector<Site>, const AdapterOptions&);
};

template <class T>
std::shared_ptr<Adapter> make(const Arena& base, std::vector<Site> sites,
                              const AdapterOptions& options) {
  return std::make_shared<T>(base, std::move(sites), options);
}

constexpr Entry kKinds[] = {
    {"lora", make<Lora>},
    {"dora", make<Dora>},
    {"ia3", make<Ia3>},
};

}  // namespace

void Adapter::prepare(const Arena&, at::ScalarType type) {
  if (type != at::kFloat) arena_.shadow(type);
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
  core::require<core::ConfigError>(!sites.empty(), "An adapter must stand somewhere: give sites.");
  for (const auto& entry : kKinds) {
    if (options.kind == entry.name) return entry.make(base, std::move(sites), options);
  }
  return nullptr;
}

}  // namespace omnima::nn
