// Finds tokens written out in text: leftmost first, of those the longest.
#include "omnima/text/specials.h"

#include <algorithm>

#include "omnima/text/unicode.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

constexpr std::uint32_t kNone = ~0u;

// What is said to be found, and all other tokens that are no text by their pieces.
std::vector<Found> all_found(const Vocabulary& vocabulary) {
  std::vector<Found> found = vocabulary.found;
  std::vector<bool> said(vocabulary.pieces.size());
  for (const Found& each : found) said[each.id] = true;
  // SentencePiece's unigram finds what users define by its score.
  const bool by_score = vocabulary.algorithm == Algorithm::kUnigram && vocabulary.marking &&
                        vocabulary.marking->sentencepiece;
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const Role role = vocabulary.roles[id];
    const bool text =
        role == Role::kText || role == Role::kByte || (role == Role::kUser && by_score);
    if (!text && !said[id]) found.push_back({static_cast<Id>(id), vocabulary.pieces[id]});
  }
  return found;
}

std::size_t total_bytes(const std::vector<Found>& found) {
  std::size_t total = 0;
  for (const Found& each : found) total += each.text.size();
  return total;
}

}  // namespace

TokenFinder::TokenFinder(const Vocabulary& vocabulary, bool after_normalizer)
    : TokenFinder(vocabulary, all_found(vocabulary), after_normalizer) {}

TokenFinder::TokenFinder(const Vocabulary& vocabulary, const std::vector<Found>& found,
                         bool after_normalizer)
    : edges_(total_bytes(found)),
      target_of_(1, kNone),
      marked_(after_normalizer && vocabulary.marking && vocabulary.marking->in_normalizer) {
  for (const Found& each : found) {
    if (each.after_normalizer != after_normalizer) continue;
    const bool user = vocabulary.roles[each.id] == Role::kUser;
    insert(marked_ ? unmarked(each.text) : each.text, static_cast<std::uint32_t>(targets_.size()));
    targets_.push_back({each.id, !user, each.strips_left, each.strips_right});
    has_any_ = true;
    has_users_ = has_users_ || user;
  }
}

void TokenFinder::insert(std::string_view text, std::uint32_t target) {
  leads_.set(static_cast<unsigned char>(text[0]));
  std::uint32_t node = 0;
  for (const char byte : text) {
    const auto label = static_cast<unsigned char>(byte);
    if (const auto* edge = edges_.find(node, label)) {
      node = edge->first;
      continue;
    }
    const auto fresh = static_cast<std::uint32_t>(target_of_.size());
    target_of_.push_back(kNone);
    edges_.insert(node, label, {fresh, 0});
    node = fresh;
  }
  if (target_of_[node] == kNone) target_of_[node] = target;
}

std::optional<TokenFinder::Match> TokenFinder::find(std::string_view text,
                                                    std::size_t start) const {
  for (std::size_t begin = start; begin < text.size(); ++begin) {
    if (!leads_[static_cast<unsigned char>(text[begin])]) continue;
    std::optional<Match> longest;
    std::uint32_t node = 0;
    for (std::size_t end = begin; end < text.size();) {
      const auto* edge = edges_.find(node, static_cast<unsigned char>(text[end]));
      if (edge == nullptr) break;
      node = edge->first;
      ++end;
      if (target_of_[node] != kNone) longest = Match{begin, end, target_of_[node]};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

bool TokenFinder::is_space(std::string_view character) const {
  if (marked_ && character[0] == ' ') return false;
  return (char_classes()[code_point(character)] & kSpace) != 0;
}

std::size_t TokenFinder::spaces_before(std::string_view text, std::size_t end,
                                       std::size_t least) const {
  while (end > least) {
    std::size_t begin = end - 1;
    while (begin > least && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!is_space(text.substr(begin, end - begin))) break;
    end = begin;
  }
  return std::max(end, least);
}

std::size_t TokenFinder::spaces_behind(std::string_view text, std::size_t start) const {
  while (start < text.size()) {
    const std::size_t length = utf8_length(static_cast<unsigned char>(text[start]));
    if (!is_space(text.substr(start, length))) break;
    start += length;
  }
  return start;
}

}  // namespace omnima::text
