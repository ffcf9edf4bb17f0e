// How numbers lie in a file: blocks of numbers that share scales. llama.cpp's GGUF has some of
// them, others are our own. A new format is a file in formats/ and a line in registry.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "omnima/kernels/cpu/block_gemv.h"

namespace omnima::quant {

struct Grid;

// A block of 256 numbers taken apart: number i is scale * scales[g] * levels[i] + least * leasts[g]
// where g is its group.
inline constexpr int kSuper = 256;
struct SuperBlock {
  std::uint16_t scale = 0, least = 0;  // halves
  std::int8_t scales[16]{};
  std::uint8_t leasts[16]{};
  std::int8_t levels[kSuper]{};
};
struct SuperLayout {
  int group;       // numbers: 16 or 32
  bool has_least;  // else leasts stay zero
  void (*read)(const std::uint8_t* block, SuperBlock& out);
};

struct Format {
  std::string name;                        // "q4_0"
  std::optional<std::uint32_t> gguf_type;  // its number in GGUF files; none: it is not one of GGUF
  std::int64_t numbers;                    // of a block
  std::int64_t bytes;                      // of a block
  std::function<void(const std::uint8_t* blocks, std::int64_t count, float* out)> dequantize;
  // Empty where Omnima only reads the format.
  std::function<void(const float* numbers, std::int64_t blocks, std::uint8_t* out)> quantize;
  // Which code of kernels/cpu computes with its blocks.
  kernels::BlockLayout layout = kernels::BlockLayout::kOther;
  // How its numbers are made of levels, for the methods that choose them; null where none does.
  std::shared_ptr<const Grid> grid{};
  // Where the 16 bits lie that hold the exponents of a block's numbers, or of what they are all
  // scaled and moved by: the numbers are finite exactly where these are. Empty: the numbers have
  // to be looked at.
  std::vector<std::int64_t> halves{};
  std::uint16_t exponent = 0x7c00;  // its bits among those 16: IEEE half's
  // The k formats of llama.cpp.
  std::optional<SuperLayout> super{};

  // Of a matrix' row of so many numbers, which are whole blocks.
  std::int64_t row_bytes(std::int64_t inputs) const { return inputs / numbers * bytes; }

  kernels::Blocks blocks() const { return {layout, numbers, bytes, dequantize}; }
};

// Those of a fixed size, and of our own families the usual sizes.
const std::vector<const Format*>& formats();
const Format* format_of_gguf_type(std::uint32_t type);  // null: not one of ours
// Throws ConfigError for an unknown one. Families have members of other sizes than formats() lists:
//   int8_g<N>      a half scale for N signed bytes
//   int4_g<N>      a half scale for N numbers of -8 to 7; N a multiple of 32
//   int4z_g<N>     a half scale and a half least number for N levels of 0 to 15
//   nf4_g<N>x<M>   M groups of N numbers of QLoRA's 16 values; a byte scales a group, a half the M
const Format& format_named(const std::string& name);

}  // namespace omnima::quant
