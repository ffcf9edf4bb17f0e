// Finds special tokens written out in text: leftmost first, of those the longest.
#pragma once

#include <bitset>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

class SpecialMatcher {
 public:
  struct Match {
    std::size_t position, length;
    Id id;
  };

  explicit SpecialMatcher(const Vocabulary& vocabulary);

  // The first special at or after start.
  std::optional<Match> find(std::string_view text, std::size_t start) const;

 private:
  std::vector<std::pair<std::string, Id>> specials_;  // longest first
  std::bitset<256> leads_;                            // bytes that some special starts with
};

}  // namespace omnima::text
