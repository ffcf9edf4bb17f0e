// The merges that a BPE vocabulary with scores stands for, as SentencePiece and llama.cpp make
// them.
#pragma once

#include <cstdint>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

// All pairs that join to a piece. A pair's rank is the place of its piece's score among all
// scores, so equal scores are merged from the left. A half may be a character that is no piece: a
// stranger, whose id is the vocabulary's size plus its place here.
struct ScoredMerges {
  std::vector<Merge> merges;
  std::vector<std::uint32_t> ranks;      // one a merge
  std::vector<std::uint32_t> strangers;  // code points
};

ScoredMerges scored_merges(const Vocabulary& vocabulary);

}  // namespace omnima::text
