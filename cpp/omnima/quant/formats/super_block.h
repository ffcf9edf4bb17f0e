// The "k" formats of llama.cpp: blocks of 256 numbers in groups with small scales of their own,
// which one or two halves scale again.
#pragma once

#include <utility>

#include "omnima/quant/format.h"
#include "omnima/quant/formats/bits.h"

namespace omnima::quant {

// Eight scales and eight least numbers of 6 bits in 12 bytes, of q4_k and q5_k.
inline void read_six_bits(const std::uint8_t* at, SuperBlock& out) {
  for (int j = 0; j < 4; ++j) {
    out.scales[j] = static_cast<std::int8_t>(at[j] & 63);
    out.leasts[j] = static_cast<std::uint8_t>(at[4 + j] & 63);
    out.scales[4 + j] = static_cast<std::int8_t>((at[8 + j] & 15) | (at[j] >> 6) << 4);
    out.leasts[4 + j] = static_cast<std::uint8_t>(at[8 + j] >> 4 | (at[4 + j] >> 6) << 4);
  }
}

// The numbers of blocks that kRead takes apart, in groups of kGroup.
template <int kGroup, bool kLeast, void (*kRead)(const std::uint8_t* block, SuperBlock& out)>
void read_super_blocks(std::int64_t bytes, const std::uint8_t* block, std::int64_t count,
                       float* out) {
  SuperBlock parts;
  for (; count > 0; --count, block += bytes, out += kSuper) {
    kRead(block, parts);
    const float scale = float_of_half(parts.scale), least = float_of_half(parts.least);
    for (int group = 0; group < kSuper / kGroup; ++group) {
      const float by = scale * static_cast<float>(parts.scales[group]);
      const float above = kLeast ? least * static_cast<float>(parts.leasts[group]) : 0.0f;
      for (int i = group * kGroup; i < (group + 1) * kGroup; ++i) {
        const float scaled = by * static_cast<float>(parts.levels[i]);
        out[i] = kLeast ? scaled + above : scaled;
      }
    }
  }
}

// `halves`: where in a block its halves lie.
template <int kGroup, bool kLeast, void (*kRead)(const std::uint8_t* block, SuperBlock& out)>
Format make_super(const char* name, std::uint32_t gguf_type, std::int64_t bytes,
                  kernels::BlockLayout layout, std::vector<std::int64_t> halves) {
  Format made{name, gguf_type, kSuper, bytes, {}, nullptr, layout, nullptr, std::move(halves)};
  made.dequantize = [bytes](const std::uint8_t* blocks, std::int64_t count, float* out) {
    read_super_blocks<kGroup, kLeast, kRead>(bytes, blocks, count, out);
  };
  made.super = SuperLayout{kGroup, kLeast, kRead};
  return made;
}

// A least number is taken away in the files: its half with the other sign is added.
inline std::uint16_t negative_half_at(const std::uint8_t* at) {
  return static_cast<std::uint16_t>(load_u16(at) ^ 0x8000);
}

}  // namespace omnima::quant
