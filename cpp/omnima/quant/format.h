// How numbers lie in a file: blocks of a few numbers that share scales, as llama.cpp's GGUF has
// them. A new format is a file in formats/ and a line in registry.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "omnima/kernels/cpu/block_gemv.h"

namespace omnima::quant {

struct Format {
  const char* name;         // "q4_0"
  std::uint32_t gguf_type;  // its number in GGUF files
  std::int64_t numbers;     // of a block
  std::int64_t bytes;       // of a block
  void (*dequantize)(const std::uint8_t* blocks, std::int64_t count, float* out);
  // Null where Omnima only reads the format.
  void (*quantize)(const float* numbers, std::int64_t blocks, std::uint8_t* out);
  // Which code of kernels/cpu computes with its blocks.
  kernels::BlockLayout layout = kernels::BlockLayout::kOther;

  kernels::Blocks blocks() const { return {layout, numbers, bytes, dequantize}; }
};

const std::vector<const Format*>& formats();
const Format* format_of_gguf_type(std::uint32_t type);  // null: not one of ours
const Format& format_named(const std::string& name);    // throws ConfigError for an unknown one

}  // namespace omnima::quant
