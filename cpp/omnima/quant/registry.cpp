#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>
#include <string_view>

#include "omnima/core/error.h"
#include "omnima/quant/formats/formats.h"

namespace omnima::quant {
namespace {

// The sizes in a name: "64" after "int4_g", "64x9" after "nf4_g". False: it has others.
bool read_sizes(std::string_view text, std::vector<std::int64_t>& sizes) {
  constexpr std::int64_t kMost = 1 << 24;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (i > 0) {
      if (!text.starts_with('x')) return false;
      text.remove_prefix(1);
    }
    if (text.empty() || text[0] < '1' || text[0] > '9') return false;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sizes[i]);
    if (error != std::errc() || sizes[i] > kMost) return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  }
  return text.empty();
}

struct Family {
  std::string_view prefix;
  std::size_t sizes;
  std::function<Format(const std::string& name, const std::vector<std::int64_t>& sizes)> make;
};

const std::vector<Family>& families() {
  using Sizes = std::vector<std::int64_t>;
  static const std::vector<Family> all{
      {"int8_g", 1, [](auto& name, const Sizes& s) { return make_int8(name, s[0]); }},
      {"int4_g", 1, [](auto& name, const Sizes& s) { return make_int4(name, s[0], false); }},
      {"int4z_g", 1, [](auto& name, const Sizes& s) { return make_int4(name, s[0], true); }},
      {"nf4_g", 2, [](auto& name, const Sizes& s) { return make_nf4(name, s[0], s[1]); }},
  };
  return all;
}

// The member of a family with that name, made at first use; null: no family has one.
const Format* member_named(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, Format> made;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = made.find(name); found != made.end()) return &found->second;
  for (const Family& family : families()) {
    std::vector<std::int64_t> sizes(family.sizes);
    if (!name.starts_with(family.prefix)) continue;
    if (!read_sizes(std::string_view(name).substr(family.prefix.size()), sizes)) continue;
    return &made.emplace(name, family.make(name, sizes)).first->second;
  }
  return nullptr;
}

std::vector<const Format*> all_formats() {
  std::vector<const Format*> all{&kF32,  &kF16, &kBf16, &kQ8_0, &kQ4_0, &kQ4_1, &kQ5_0,
                                 &kQ5_1, &kQ2K, &kQ3K,  &kQ4K,  &kQ5K,  &kQ6K};
  for (const char* name : {"int8_g32", "int8_g64", "int8_g128", "int8_g576", "int4_g32", "int4_g64",
                           "int4_g128", "int4z_g32", "int4z_g64", "int4z_g128", "nf4_g32x4",
                           "nf4_g64x4", "nf4_g64x9", "nf4_g128x2"}) {
    all.push_back(member_named(name));
  }
  return all;
}

}  // namespace

const std::vector<const Format*>& formats() {
  static const std::vector<const Format*> all = all_formats();
  return all;
}

const Format* format_of_gguf_type(std::uint32_t type) {
  const auto found = std::find_if(formats().begin(), formats().end(),
                                  [&](const Format* each) { return each->gguf_type == type; });
  return found == formats().end() ? nullptr : *found;
}

const Format& format_named(const std::string& name) {
  for (const Format* each : formats()) {
    if (name == each->name) return *each;
  }
  if (const Format* member = member_named(name)) return *member;
  std::string known;
  for (const Format* each : formats()) known += (known.empty() ? "" : ", ") + each->name;
  throw core::ConfigError(core::message("There is no number format \"", name, "\"; there are ",
                                        known, ", and members of these families of other sizes."));
}

}  // namespace omnima::quant
