// The replacement of characters that SentencePiece's model files carry ("precompiled charsmap").
#include "omnima/text/character_map.h"

#include <algorithm>
#include <cstring>

#include "omnima/core/error.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

// Bytes of an entry; only a damaged trie, whose units form a ring, has longer ones.
constexpr std::size_t kLongest = 256;

// A unit of the trie: a label in the low byte and bit 31, whether a value hangs below (bit 8), and
// the distance to its children in bits 10 to 30, times 256 where bit 9 is set.
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FFu; }
bool has_value(std::uint32_t unit) { return (unit >> 8 & 1u) != 0; }
std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFFu; }
std::uint32_t offset(std::uint32_t unit) { return unit >> 10 << ((unit & 0x200u) >> 6); }

}  // namespace

CharacterMap::CharacterMap(std::string_view bytes) {
  std::uint32_t size = 0;
  if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
  core::require<core::DataError>(
      size >= 1024 && size % 4 == 0 && size < bytes.size() - sizeof size && bytes.back() == '\0',
      "the map of characters (precompiled_charsmap) is damaged: its ", bytes.size(),
      " bytes are no trie with replacements behind it");
  units_.resize(size / 4);
  std::memcpy(units_.data(), bytes.data() + sizeof size, size);
  replacements_ = bytes.substr(sizeof size + size);
  core::require<core::DataError>(
      find_invalid_utf8(replacements_) == std::string_view::npos,
      "the map of characters (precompiled_charsmap) is damaged: a replacement is no valid UTF-8");
}

CharacterMap::Step CharacterMap::step(std::string_view text) const {
  const std::size_t length = utf8_length(static_cast<unsigned char>(text[0]));
  Step found = {length, text.substr(0, length)};
  std::size_t node = offset(units_[0]);
  for (std::size_t i = 0; i < std::min(text.size(), kLongest); ++i) {
    node ^= static_cast<unsigned char>(text[i]);
    if (node >= units_.size() || label(units_[node]) != static_cast<unsigned char>(text[i])) break;
    const std::uint32_t unit = units_[node];
    node ^= offset(unit);
    if (node >= units_.size()) break;
    const bool ends_character =
        i + 1 == text.size() || (static_cast<unsigned char>(text[i + 1]) & 0xC0) != 0x80;
    if (!has_value(unit) || !ends_character) continue;
    const std::uint32_t at = value(units_[node]);
    // A damaged map may point into the middle of a character.
    const bool begins_character =
        at < replacements_.size() && (static_cast<unsigned char>(replacements_[at]) & 0xC0) != 0x80;
    if (begins_character) found = {i + 1, replacements_.c_str() + at};
  }
  return found;
}

}  // namespace omnima::text
