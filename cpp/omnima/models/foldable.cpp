#include "omnima/models/foldable.h"

#include <algorithm>
#include <optional>
#include <string_view>

namespace omnima::models {
namespace {

using Names = std::map<std::string, std::int64_t>;

// Those of a module's weight and bias that there are.
std::vector<std::string> parameters_of(const std::string& module, const Names& names) {
  std::vector<std::string> found;
  for (const char* kind : {".weight", ".bias"}) {
    if (names.contains(module + kind)) found.push_back(module + kind);
  }
  return found;
}

std::optional<Foldable> fold(const std::string& writer, const std::vector<std::string>& readers,
                             const Names& names) {
  Foldable made{{}, parameters_of(writer, names)};
  for (const auto& each : readers) {
    if (names.contains(each + ".weight")) made.readers.push_back(each + ".weight");
  }
  if (made.readers.empty() || made.writers.empty()) return std::nullopt;
  return made;
}

}  // namespace

std::vector<Foldable> foldables(const std::string& prefix, const Names& names) {
  std::vector<Foldable> all;
  const auto add = [&](const std::string& writer, const std::vector<std::string>& readers) {
    if (auto made = fold(prefix + writer, readers, names)) all.push_back(std::move(*made));
  };
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp";
  add("input_layernorm", {attention + "q_proj", attention + "k_proj", attention + "v_proj"});
  // With experts their router reads the norm, too, and stays as it is.
  add("post_attention_layernorm", {mlp + ".gate_proj", mlp + ".up_proj"});
  // A gated mlp's inner numbers are the product of the two, so that those of `up` can be scaled.
  for (auto at = names.lower_bound(mlp + "."); at != names.end(); ++at) {
    const std::string& name = at->first;
    if (!name.starts_with(mlp + ".")) break;
    constexpr std::string_view kUp = ".up_proj.weight";
    if (!name.ends_with(kUp)) continue;
    const std::string module = name.substr(0, name.size() - kUp.size());
    if (!names.contains(module + ".gate_proj.weight")) continue;
    add(module.substr(prefix.size()) + ".up_proj", {module + ".down_proj"});
  }
  return all;
}

}  // namespace omnima::models
