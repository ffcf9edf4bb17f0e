// Spaces as marks, and back.
#include "omnima/text/marking.h"

#include "omnima/text/character_map.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

void append_unmarked(std::string_view text, std::string& out) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t next = text.find(kSpaceMark, at);
    out.append(text, at, next - at);
    if (next == std::string_view::npos) return;
    out += ' ';
    at = next + kSpaceMark.size();
  }
}

// As SentencePiece does it: the spaces at the start go before the prefix is added, and after a
// replacement that ends with a space those that follow go.
void append_cleaned(std::string_view text, const Marking& marking, std::string& out) {
  const auto step = [&]() -> CharacterMap::Step {
    if (marking.characters) return marking.characters->step(text);
    const std::size_t length = utf8_length(static_cast<unsigned char>(text[0]));
    return {length, text.substr(0, length)};
  };
  while (marking.collapse && !text.empty() && step().replacement == " ") {
    text.remove_prefix(step().length);
  }
  if (text.empty()) return;
  if (marking.prefix != Prefix::kNever) out += ' ';
  for (bool after_space = marking.collapse; !text.empty();) {
    auto [length, part] = step();
    while (after_space && part.starts_with(' ')) part.remove_prefix(1);
    append_unmarked(part, out);
    if (!part.empty()) after_space = marking.collapse && part.ends_with(' ');
    text.remove_prefix(length);
  }
  while (marking.collapse && out.ends_with(' ')) out.pop_back();
}

}  // namespace

std::string_view mark(std::string_view text, bool opens, const Marking& marking,
                      std::string& buffer) {
  if (text.empty()) return text;
  buffer.clear();
  if (marking.collapse || marking.characters) {
    append_cleaned(text, marking, buffer);
    return buffer;
  }
  const bool open = !text.starts_with(' ') && !text.starts_with(kSpaceMark);
  const bool prefixed = marking.prefix == Prefix::kEvery ||
                        (marking.prefix == Prefix::kAlways && open) ||
                        (marking.prefix == Prefix::kFirst && open && opens);
  if (!prefixed && text.find(kSpaceMark) == std::string_view::npos) return text;
  if (prefixed) buffer += ' ';
  append_unmarked(text, buffer);
  return buffer;
}

std::string unmarked(std::string_view text) {
  std::string out;
  append_unmarked(text, out);
  return out;
}

}  // namespace omnima::text
