// What each token of a vocabulary decodes to, before its bytes are joined to text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD, what an unknown character decodes to

// One piece of memory for all: a vocabulary has tens of thousands of short ones.
class DecodedPieces {
 public:
  // Of a checked vocabulary; marks are spaces already. Throws DataError where a piece of a
  // byte-level one spells no bytes.
  explicit DecodedPieces(const Vocabulary& vocabulary);

  std::string_view operator[](std::size_t id) const {
    return std::string_view(bytes_).substr(begins_[id], begins_[id + 1] - begins_[id]);
  }

 private:
  std::string bytes_;
  std::vector<std::size_t> begins_;  // one more than tokens
};

}  // namespace omnima::text
