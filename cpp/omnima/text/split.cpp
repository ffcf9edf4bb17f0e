// Each scanner walks its pattern's alternatives in order; comments give the part of the regular
// expression. White space is Unicode's White_Space, and case-insensitive s is also U+017F.
#include "omnima/text/split.h"

#include <algorithm>
#include <array>
#include <utility>

#include "omnima/core/error.h"
#include "omnima/text/unicode.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

constexpr std::array<std::pair<std::string_view, Pattern>, 6> kPatterns = {{
    {"gpt2", Pattern::kGpt2},
    {"gpt2-digits", Pattern::kGpt2Digits},
    {"cl100k", Pattern::kCl100k},
    {"llama3", Pattern::kLlama3},
    {"qwen2", Pattern::kQwen2},
    {"o200k", Pattern::kO200k},
}};

constexpr std::uint8_t kCapital = kUpper | kUncased | kMark;  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
constexpr std::uint8_t kSmall = kLower | kUncased | kMark;    // [\p{Ll}\p{Lm}\p{Lo}\p{M}]

bool is_newline(char byte) { return byte == '\r' || byte == '\n'; }

// Length of 's 't 're 've 'm 'll 'd at position, in any case when asked; 0: none is there.
std::size_t contraction(std::string_view text, std::size_t position, bool any_case) {
  if (position >= text.size() || text[position] != '\'') return 0;
  const auto letter = [&](std::size_t i) {
    const char byte = position + i < text.size() ? text[position + i] : '\0';
    return any_case && byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte + 32) : byte;
  };
  const char one = letter(1), two = letter(2);
  if (one == 's' || one == 't' || one == 'm' || one == 'd') return 2;
  if ((one == 'r' && two == 'e') || (one == 'v' && two == 'e') || (one == 'l' && two == 'l'))
    return 3;
  return any_case && text.compare(position + 1, 2, "\u017F") == 0 ? 3 : 0;
}

}  // namespace

Pattern pattern_of(std::string_view name) {
  for (const auto& [known, pattern] : kPatterns) {
    if (known == name) return pattern;
  }
  std::string names;
  for (const auto& [known, pattern] : kPatterns) {
    if (!names.empty()) names += ", ";
    names += known;
  }
  core::require<core::DataError>(false, "the pattern '", name, "' is unknown; expected one of ",
                                 names);
  return Pattern::kGpt2;
}

std::vector<std::string> pattern_names() {
  std::vector<std::string> names;
  for (const auto& [name, pattern] : kPatterns) names.emplace_back(name);
  return names;
}

Splitter::Splitter(Pattern pattern) : classes_(char_classes()), pattern_(pattern) {
  const bool gpt2 = pattern == Pattern::kGpt2 || pattern == Pattern::kGpt2Digits;
  scan_ = gpt2                         ? &Splitter::scan_gpt2
          : pattern == Pattern::kO200k ? &Splitter::scan_cased
                                       : &Splitter::scan_words;
}

Splitter::Character Splitter::at(std::string_view text, std::size_t position) const {
  if (position >= text.size()) return {0, 0, '\0'};
  const auto lead = static_cast<unsigned char>(text[position]);
  if (lead < 0x80) return {classes_[lead], 1, text[position]};
  const std::size_t length = utf8_length(lead);
  return {classes_[code_point(text.substr(position, length))], static_cast<std::uint8_t>(length),
          text[position]};
}

// [^\s\p{L}\p{N}]
bool Splitter::is_other(const Character& character) const {
  return character.length != 0 && (character.classes & (kSpace | kLetter | kNumber)) == 0;
}

std::size_t Splitter::skip(std::string_view text, std::size_t position,
                           std::uint8_t classes) const {
  for (Character next = at(text, position); (next.classes & classes) != 0;
       next = at(text, position)) {
    position += next.length;
  }
  return position;
}

std::size_t Splitter::skip_others(std::string_view text, std::size_t position) const {
  for (Character next = at(text, position); is_other(next); next = at(text, position)) {
    position += next.length;
  }
  return position;
}

// '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// gpt2-digits takes every number by itself first, and the text between numbers in this way.
std::size_t Splitter::scan_gpt2(std::string_view text, std::size_t start) const {
  if (const std::size_t length = contraction(text, start, false)) return start + length;
  const std::size_t word = start + (text[start] == ' ' ? 1 : 0);
  const Character first = at(text, word);
  if ((first.classes & kLetter) != 0) return skip(text, word, kLetter);
  if ((first.classes & kNumber) != 0) {
    if (pattern_ == Pattern::kGpt2) return skip(text, word, kNumber);
    return word == start ? start + first.length : word;
  }
  if (is_other(first)) return skip_others(text, word);
  return spaces(text, start);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
// \s*[\r\n]+|\s+(?!\S)|\s+
std::size_t Splitter::scan_words(std::string_view text, std::size_t start) const {
  if (const std::size_t length = contraction(text, start, true)) return start + length;
  const Character first = at(text, start);
  if ((first.classes & kLetter) != 0) return skip(text, start, kLetter);
  if ((first.classes & kNumber) != 0) return digits(text, start);
  if (!is_newline(first.byte)) {
    const std::size_t word = start + first.length;
    if ((at(text, word).classes & kLetter) != 0) return skip(text, word, kLetter);
  }
  const std::size_t end = symbols(text, start);
  return end != start ? end : spaces(text, start);
}

// The two kinds of words, each with (?i:'s|'t|'re|'ve|'m|'ll|'d)? behind it, then as scan_words.
std::size_t Splitter::scan_cased(std::string_view text, std::size_t start) const {
  const Character first = at(text, start);
  // [^\r\n\p{L}\p{N}]? takes the first character if that leads to a match, else nothing.
  const bool prefix = !is_newline(first.byte) && (first.classes & (kLetter | kNumber)) == 0;
  const std::size_t word = start + first.length;
  std::optional<std::size_t> end;
  if (prefix) end = lower_word(text, word);
  if (!end) end = lower_word(text, start);
  if (!end && prefix) end = upper_word(text, word);
  if (!end) end = upper_word(text, start);
  if (end) return *end + contraction(text, *end, true);
  if ((first.classes & kNumber) != 0) return digits(text, start);
  const std::size_t after = symbols(text, start);
  return after != start ? after : spaces(text, start);
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+
std::optional<std::size_t> Splitter::lower_word(std::string_view text, std::size_t start) const {
  std::size_t position = start;
  std::optional<std::size_t> behind_both;  // end of the last character that is in both classes
  for (Character next = at(text, position); (next.classes & kCapital) != 0;
       next = at(text, position)) {
    position += next.length;
    if ((next.classes & kSmall) != 0) behind_both = position;
  }
  const std::size_t end = skip(text, position, kSmall);
  if (end != position) return end;
  return behind_both;  // the capitals behind it are given back
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*
std::optional<std::size_t> Splitter::upper_word(std::string_view text, std::size_t start) const {
  const std::size_t position = skip(text, start, kCapital);
  if (position == start) return std::nullopt;
  return skip(text, position, kSmall);
}

// \p{N}{1,3}, or one \p{N} for qwen2; a number is at start.
std::size_t Splitter::digits(std::string_view text, std::size_t start) const {
  const int most = pattern_ == Pattern::kQwen2 ? 1 : 3;
  for (int i = 0; i < most; ++i) {
    const Character next = at(text, start);
    if ((next.classes & kNumber) == 0) break;
    start += next.length;
  }
  return start;
}

//  ?[^\s\p{L}\p{N}]+[\r\n]*, for o200k [\r\n/]*; `start` where there is none.
std::size_t Splitter::symbols(std::string_view text, std::size_t start) const {
  const std::size_t first = start + (text[start] == ' ' ? 1 : 0);
  std::size_t end = skip_others(text, first);
  if (end == first) return start;
  const bool slash = pattern_ == Pattern::kO200k;
  while (end < text.size() && (is_newline(text[end]) || (slash && text[end] == '/'))) ++end;
  return end;
}

// gpt2: \s+(?!\S)|\s+; the others: \s*[\r\n]+|\s+(?!\S)|\s+; cl100k puts \s+$ in front.
std::size_t Splitter::spaces(std::string_view text, std::size_t start) const {
  const bool digits = pattern_ == Pattern::kGpt2Digits;
  const bool lines = pattern_ != Pattern::kGpt2 && !digits;
  std::size_t end = start, last = start, behind_newline = start;
  for (Character next = at(text, end); (next.classes & kSpace) != 0; next = at(text, end)) {
    last = end;
    end += next.length;
    if (is_newline(next.byte)) behind_newline = end;
  }
  if (pattern_ == Pattern::kCl100k && end == text.size()) return end;
  if (lines && behind_newline != start) return behind_newline;
  if (end == text.size() || last == start) return end;
  return digits && (at(text, end).classes & kNumber) != 0 ? end : last;
}

}  // namespace omnima::text
