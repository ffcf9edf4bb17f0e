#include <algorithm>

#include "omnima/core/error.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {

const std::vector<const Format*>& formats() {
  static const std::vector<const Format*> all{&kF32,  &kF16, &kBf16, &kQ8_0, &kQ4_0, &kQ4_1, &kQ5_0,
                                              &kQ5_1, &kQ2K, &kQ3K,  &kQ4K,  &kQ5K,  &kQ6K};
  return all;
}

const Format* format_of_gguf_type(std::uint32_t type) {
  const auto found = std::find_if(formats().begin(), formats().end(),
                                  [&](const Format* each) { return each->gguf_type == type; });
  return found == formats().end() ? nullptr : *found;
}

const Format& format_named(const std::string& name) {
  std::string known;
  for (const Format* each : formats()) {
    if (name == each->name) return *each;
    known += (known.empty() ? "" : ", ") + std::string(each->name);
  }
  throw core::ConfigError(
      core::message("There is no number format \"", name, "\"; there are ", known, "."));
}

}  // namespace omnima::quant
