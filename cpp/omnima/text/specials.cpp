// Finds special tokens written out in text: leftmost first, of those the longest.
#include "omnima/text/specials.h"

#include <algorithm>

namespace omnima::text {

SpecialMatcher::SpecialMatcher(const Vocabulary& vocabulary) {
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const Role role = vocabulary.roles[id];
    if (role != Role::kSpecial && role != Role::kAdded) continue;
    specials_.emplace_back(vocabulary.pieces[id], static_cast<Id>(id));
    leads_.set(static_cast<unsigned char>(vocabulary.pieces[id][0]));
  }
  std::stable_sort(specials_.begin(), specials_.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
}

std::optional<SpecialMatcher::Match> SpecialMatcher::find(std::string_view text,
                                                          std::size_t start) const {
  for (std::size_t position = start; position < text.size(); ++position) {
    if (!leads_[static_cast<unsigned char>(text[position])]) continue;
    for (const auto& [piece, id] : specials_) {
      if (text.compare(position, piece.size(), piece) == 0)
        return Match{position, piece.size(), id};
    }
  }
  return std::nullopt;
}

}  // namespace omnima::text
