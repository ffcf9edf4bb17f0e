// The merges that a BPE vocabulary with scores stands for, as SentencePiece and llama.cpp make
// them.
#include "omnima/text/scored_merges.h"

#include <algorithm>
#include <functional>
#include <string_view>
#include <unordered_map>

#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

bool is_mergeable(const Vocabulary& vocabulary, std::size_t id) {
  return vocabulary.roles[id] == Role::kText || vocabulary.roles[id] == Role::kUser;
}

// The different scores of mergeable pieces, best first.
std::vector<double> ranked_scores(const Vocabulary& vocabulary) {
  std::vector<double> scores;
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (is_mergeable(vocabulary, id)) scores.push_back(vocabulary.scores[id]);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  return scores;
}

}  // namespace

ScoredMerges scored_merges(const Vocabulary& vocabulary) {
  ScoredMerges made;
  const std::vector<double> scores = ranked_scores(vocabulary);
  std::size_t longest = 0;
  std::unordered_map<std::string_view, Id> ids;
  ids.reserve(vocabulary.pieces.size());
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (is_mergeable(vocabulary, id)) ids.emplace(vocabulary.pieces[id], static_cast<Id>(id));
    longest = std::max(longest, vocabulary.pieces[id].size());
  }
  // Only halves as long as some piece are looked up: a piece of many kilobytes costs no more.
  std::vector<bool> lengths(longest + 1);
  for (const auto& [piece, id] : ids) lengths[piece.size()] = true;
  const auto half = [&](std::string_view text) {
    const bool is_character = utf8_length(static_cast<unsigned char>(text[0])) == text.size();
    if (!is_character && !lengths[text.size()]) return kNoId;
    if (const auto found = ids.find(text); found != ids.end()) return found->second;
    if (!is_character) return kNoId;
    const auto id = static_cast<Id>(vocabulary.pieces.size() + made.strangers.size());
    made.strangers.push_back(code_point(text));
    ids.emplace(text, id);
    return id;
  };
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const std::string_view piece = vocabulary.pieces[id];
    if (!is_mergeable(vocabulary, id) || ids.at(piece) != id) continue;
    const auto rank = static_cast<std::uint32_t>(
        std::lower_bound(scores.begin(), scores.end(), vocabulary.scores[id], std::greater<>()) -
        scores.begin());
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xC0) == 0x80) continue;
      const Id left = half(piece.substr(0, cut));
      if (left == kNoId) continue;
      const Id right = half(piece.substr(cut));
      if (right == kNoId) continue;
      made.merges.push_back({left, right, static_cast<Id>(id)});
      made.ranks.push_back(rank);
    }
  }
  return made;
}

}  // namespace omnima::text
