// The "k" formats of llama.cpp: blocks of 256 numbers in groups with small scales of their own,
// which one or two halves scale again.
#pragma once

#include "omnima/quant/formats/bits.h"

namespace omnima::quant {

constexpr int kSuper = 256;

// Eight scales and eight least numbers of 6 bits in 12 bytes, of q4_k and q5_k.
struct SixBits {
  int scale[8], least[8];

  explicit SixBits(const std::uint8_t* at) {
    for (int j = 0; j < 4; ++j) {
      scale[j] = at[j] & 63;
      least[j] = at[4 + j] & 63;
      scale[4 + j] = (at[8 + j] & 15) | (at[j] >> 6) << 4;
      least[4 + j] = at[8 + j] >> 4 | (at[4 + j] >> 6) << 4;
    }
  }
};

}  // namespace omnima::quant
