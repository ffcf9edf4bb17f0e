// What a character is (letter, mark, number, space), and canonical composition (NFC).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace omnima::text {

// Bits; a character has at most one of the first six.
enum CharClass : std::uint8_t {
  kUpper = 1,     // Lu, Lt
  kLower = 2,     // Ll
  kUncased = 4,   // Lm, Lo
  kMark = 8,      // M
  kNumber = 16,   // N
  kSpace = 32,    // White_Space
  kUnstable = 64  // a text without such characters is in NFC
};
constexpr std::uint8_t kLetter = kUpper | kLower | kUncased;

// The classes of all code points, [0x110000].
const std::uint8_t* char_classes();

// Appends the code point to out in UTF-8.
void append_utf8(std::uint32_t point, std::string& out);

// Valid UTF-8 text in normalization form C. The result is a view of the text itself where that is
// in NFC, else of `buffer`.
std::string_view to_nfc(std::string_view text, std::string& buffer);

}  // namespace omnima::text
