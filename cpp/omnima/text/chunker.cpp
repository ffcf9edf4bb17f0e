// Cuts text where no piece of the vocabulary can reach across, so that chunks are encoded and
// cached on their own.
#include "omnima/text/chunker.h"

namespace omnima::text {

Chunker::Chunker(const Vocabulary& vocabulary) {
  for (int left = 0; left < 256; ++left) {
    for (int continuation = 0x80; continuation < 0xC0; ++continuation) {
      joined_.set(slot(static_cast<char>(left), static_cast<char>(continuation)));
    }
  }
  for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const Role role = vocabulary.roles[id];
    const bool byte_as_text = role == Role::kByte && vocabulary.marking;
    if (role != Role::kText && role != Role::kUser && !byte_as_text) continue;
    const std::string& piece = vocabulary.pieces[id];
    for (std::size_t i = 0; i + 1 < piece.size(); ++i) joined_.set(slot(piece[i], piece[i + 1]));
  }
  if (!vocabulary.marking || !vocabulary.marking->words) return;
  for (int left = 0; left < 256; ++left) joined_.reset(slot(static_cast<char>(left), ' '));
}

}  // namespace omnima::text
