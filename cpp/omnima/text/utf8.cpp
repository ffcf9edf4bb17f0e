// UTF-8 by hand: one scanner that tells complete, broken and unfinished characters apart.
#include "omnima/text/utf8.h"

#include <cstring>

namespace omnima::text {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD

// The bounds of a second byte: they exclude overlong forms, surrogates and what lies above
// U+10FFFF.
bool second_byte_fits(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return second >= 0x80 && second <= 0xBF;
  }
}

}  // namespace

Utf8Step utf8_step(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[position + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8Kind::kComplete, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Kind::kInvalid, 1};
  const std::size_t length = utf8_length(lead);
  const std::size_t available = text.size() - position;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == available) return {Utf8Kind::kUnfinished, available};
    const bool fits = i == 1 ? second_byte_fits(lead, byte(1)) : (byte(i) & 0xC0) == 0x80;
    if (!fits) return {Utf8Kind::kInvalid, i};
  }
  return {Utf8Kind::kComplete, length};
}

std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    if (position + 8 <= text.size()) {
      std::uint64_t eight;
      std::memcpy(&eight, text.data() + position, 8);
      if ((eight & 0x8080808080808080ULL) == 0) {
        position += 8;
        continue;
      }
    }
    const Utf8Step step = utf8_step(text, position);
    if (step.kind != Utf8Kind::kComplete) return position;
    position += step.length;
  }
  return std::string_view::npos;
}

std::uint32_t code_point(std::string_view character) {
  const auto bits = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(character[i])) & 0x3F;
  };
  const auto lead = static_cast<unsigned char>(character[0]);
  switch (utf8_length(lead)) {
    case 1:
      return lead;
    case 2:
      return (lead & 0x1Fu) << 6 | bits(1);
    case 3:
      return (lead & 0x0Fu) << 12 | bits(1) << 6 | bits(2);
    default:
      return (lead & 0x07u) << 18 | bits(1) << 12 | bits(2) << 6 | bits(3);
  }
}

std::size_t append_replaced(std::string_view bytes, bool hold_unfinished, std::string& out,
                            bool each_byte) {
  std::size_t position = 0;
  while (position < bytes.size()) {
    const Utf8Step step = utf8_step(bytes, position);
    if (step.kind == Utf8Kind::kUnfinished && hold_unfinished) break;
    if (step.kind == Utf8Kind::kComplete) {
      out.append(bytes, position, step.length);
    } else {
      for (std::size_t i = 0; i < (each_byte ? step.length : 1); ++i) out += kReplacement;
    }
    position += step.length;
  }
  return position;
}

}  // namespace omnima::text
