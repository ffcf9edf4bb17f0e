// Levels of 4 bits in pieces of 32: byte i of a piece holds levels i (its low bits) and i + 16, as
// in q4_0 and q4_1.
#pragma once

#include <cstdint>

namespace omnima::quant {

constexpr std::int64_t kPieceOfNibbles = 32;

inline void pack_nibbles(const std::uint8_t* levels, std::int64_t count, std::uint8_t* out) {
  for (std::int64_t at = 0; at < count; at += 32, levels += 32, out += 16) {
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<std::uint8_t>(levels[i] | levels[i + 16] << 4);
    }
  }
}

inline void unpack_nibbles(const std::uint8_t* bytes, std::int64_t count, std::uint8_t* levels) {
  for (std::int64_t at = 0; at < count; at += 32, levels += 32, bytes += 16) {
    for (int i = 0; i < 16; ++i) {
      levels[i] = bytes[i] & 15;
      levels[i + 16] = bytes[i] >> 4;
    }
  }
}

}  // namespace omnima::quant
