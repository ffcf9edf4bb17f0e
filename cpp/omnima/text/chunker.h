// Cuts text where no piece of the vocabulary can reach across, so that chunks are encoded and
// cached on their own.
#pragma once

#include <bitset>
#include <string_view>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

// Two neighbouring bytes are joined when some piece holds them side by side, or when they are of
// one character; never, where every space begins a word, before a space. Between bytes that are not
// joined every cut is exact, whatever the vocabulary was trained on.
class Chunker {
 public:
  explicit Chunker(const Vocabulary& vocabulary);

  // End of the chunk that starts at start; start < text.size().
  std::size_t end_of_chunk(std::string_view text, std::size_t start) const {
    std::size_t end = start + 1;
    while (end < text.size() && joined(text[end - 1], text[end])) ++end;
    return end;
  }

 private:
  static std::size_t slot(char left, char right) {
    return static_cast<std::size_t>(static_cast<unsigned char>(left)) << 8 |
           static_cast<unsigned char>(right);
  }
  bool joined(char left, char right) const { return joined_[slot(left, right)]; }

  std::bitset<65536> joined_;
};

}  // namespace omnima::text
