// Spaces as marks: vocabularies of the SentencePiece kind spell a space as U+2581 and put one in
// front of a text. Inside, text and pieces have a plain space in its place, so that most text is
// cut as it stands.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace omnima::text {

class CharacterMap;

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// Which stretches of text between found tokens get a mark in front.
enum class Prefix {
  kNever,
  kFirst,   // the one where the text begins, unless a space or mark is there
  kAlways,  // each, unless a space or mark is there
  kEvery,   // each, whatever is there
};

// What a text loses where it begins when it is decoded.
enum class Opening {
  kNothing,
  kSpace,  // one space
  kMark,   // the mark that its first piece begins with
  kMarks,  // that of each piece, until there is some text
  kPiece,  // all marks of its first piece
};

struct Marking {
  Prefix prefix = Prefix::kNever;
  Opening opening = Opening::kNothing;
  bool in_normalizer = false;  // marked before the tokens with Found::after_normalizer are found
  bool words = false;          // every mark begins a word, and no piece reaches across words
  bool collapse = false;       // no space at the ends, one where several are
  bool sentencepiece = false;  // rules of SentencePiece where those of Hugging Face differ
  std::shared_ptr<const CharacterMap> characters;  // replaces characters first
};

// Text as it is cut: characters replaced, spaces collapsed, marks as spaces and the prefix in
// front. A view of the text itself or of the buffer. `opens`: the text begins here.
std::string_view mark(std::string_view text, bool opens, const Marking& marking,
                      std::string& buffer);

// A text with every mark as a space.
std::string unmarked(std::string_view text);

}  // namespace omnima::text
