// UTF-8 by hand: one scanner that tells complete, broken and unfinished characters apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace omnima::text {

enum class Utf8Kind { kComplete, kInvalid, kUnfinished };

// One step of the scanner. For kInvalid the length is that of the maximal subpart (Unicode 3.9,
// table 3-8), the run of bytes that a decoder replaces by one U+FFFD; for kUnfinished it reaches
// the end of the text.
struct Utf8Step {
  Utf8Kind kind;
  std::size_t length;
};

// Looks at the character that starts at text[position]; position < text.size().
Utf8Step utf8_step(std::string_view text, std::size_t position);

// Position of the first byte that does not belong to a valid character, or npos.
std::size_t find_invalid_utf8(std::string_view text);

// Length in bytes of the character that a valid lead byte starts.
inline std::size_t utf8_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Code point of the character at the start of valid text.
std::uint32_t code_point(std::string_view character);

// Appends bytes to out with every broken sequence replaced by U+FFFD. Returns how many bytes were
// used: all of them, or all but an unfinished tail when hold_unfinished is true. With each_byte
// every byte of a broken sequence becomes one U+FFFD.
std::size_t append_replaced(std::string_view bytes, bool hold_unfinished, std::string& out,
                            bool each_byte = false);

}  // namespace omnima::text
