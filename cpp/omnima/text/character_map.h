// The replacement of characters that SentencePiece's model files carry ("precompiled charsmap").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace omnima::text {

// A double-array trie (Aoe 1989) from strings to what stands for them.
class CharacterMap {
 public:
  struct Step {
    std::size_t length;            // bytes of the text that are replaced
    std::string_view replacement;  // what stands for them
  };

  // The bytes of the map: the size of the trie in bytes, its units, then replacements that each end
  // with a zero byte. DataError for bytes that are no such map.
  explicit CharacterMap(std::string_view bytes);

  // The longest entry at the start of valid UTF-8 text that is not empty, or its first character.
  Step step(std::string_view text) const;

 private:
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace omnima::text
