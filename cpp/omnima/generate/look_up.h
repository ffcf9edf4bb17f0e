// Prompt look-up: what a text goes on with is copied from a place in it that looks alike.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "omnima/generate/speculation.h"

namespace omnima::generate {

// Looks for the place of one text that most likely goes on as the text will, and proposes what
// stands there. Places are alike by how many of the latest tokens agree and, behind one token that
// does not (the number of a line, a name), how many agree again. How often each such likeness was
// right is counted in the text itself, whether its guess was proposed or not.
class LookUp {
 public:
  explicit LookUp(std::int64_t most) : most_(most) {}

  // Appends to `proposals` as many tokens, at most `limit`, as give the most tokens a second beside
  // `others` rows of the step; none, where nothing is alike or guessing costs more than it brings.
  // `ids` is the text so far: the one of the call before and what was written since.
  void propose(std::span<const std::int64_t> ids, const Pace& pace, std::int64_t others,
               std::int64_t limit, std::vector<std::int64_t>& proposals);

 private:
  struct Place {
    std::int64_t at = 0;      // what stands here is the guess; 0: there is none
    std::int64_t agreed = 0;  // tokens before it that are the text's latest
    std::int64_t before = 0;  // tokens that agree before the one that does not
  };
  struct Count {
    double right = 0, wrong = 0;
  };
  static constexpr std::int64_t kAgreed = 6, kBefore = 3;  // kinds of likeness

  static std::size_t kind(std::int64_t agreed, std::int64_t before);
  static std::array<Count, kAgreed * kBefore> expected();

  Place find(std::span<const std::int64_t> ids) const;
  double share(std::int64_t agreed, std::int64_t before) const;
  void learn(std::span<const std::int64_t> ids);

  std::int64_t most_;
  std::array<Count, kAgreed * kBefore> counts_ = expected();
  Place place_;              // of the last look
  std::int64_t length_ = 0;  // of the text then
};

}  // namespace omnima::generate
