// Finds tokens written out in text: leftmost first, of those the longest.
#pragma once

#include <bitset>
#include <optional>
#include <string_view>
#include <vector>

#include "omnima/text/pair_table.h"
#include "omnima/text/vocabulary.h"

namespace omnima::text {

class TokenFinder {
 public:
  // Finds the tokens that are looked for before, or after, the normalizer. Marked text has its
  // spaces as marks, which are no white space.
  TokenFinder(const Vocabulary& vocabulary, bool after_normalizer);

  // Whether there is anything to find: tokens of users are always, others when asked.
  bool finds(bool special_too) const { return special_too ? has_any_ : has_users_; }

  // Calls stretch(begin, end) for the text between tokens and token(id) for each, in their order.
  // White space that a token takes along is in no stretch.
  template <class Stretch, class Token>
  void split(std::string_view text, bool special_too, const Stretch& stretch,
             const Token& token) const {
    std::size_t done = 0;
    for (auto match = find(text, 0); match; match = find(text, match->end)) {
      const Target& target = targets_[match->target];
      if (target.special && !special_too) continue;
      const std::size_t begin =
          target.strips_left ? spaces_before(text, match->begin, done) : match->begin;
      if (done < begin) stretch(done, begin);
      token(target.id);
      done = target.strips_right ? spaces_behind(text, match->end) : match->end;
    }
    if (done < text.size()) stretch(done, text.size());
  }

 private:
  struct Target {
    Id id;
    bool special, strips_left, strips_right;
  };
  struct Match {
    std::size_t begin, end;
    std::uint32_t target;
  };

  TokenFinder(const Vocabulary& vocabulary, const std::vector<Found>& found, bool after_normalizer);

  void insert(std::string_view text, std::uint32_t target);
  std::optional<Match> find(std::string_view text, std::size_t start) const;
  std::size_t spaces_before(std::string_view text, std::size_t end, std::size_t least) const;
  std::size_t spaces_behind(std::string_view text, std::size_t start) const;
  bool is_space(std::string_view character) const;

  std::vector<Target> targets_;
  PairTable edges_;                       // (node, byte) → (node, unused): a prefix tree
  std::vector<std::uint32_t> target_of_;  // by node
  std::bitset<256> leads_;                // bytes that some token starts with
  bool marked_;
  bool has_any_ = false, has_users_ = false;
};

}  // namespace omnima::text
