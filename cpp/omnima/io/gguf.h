// The GGUF format of llama.cpp: a header, keys with values, descriptions of tensors, their bytes.
// Files are untrusted: every size, count and offset is checked against the file's size before
// anything is allocated. Versions 2 and 3, little-endian.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "omnima/io/mapping.h"

namespace omnima::io {

// Numbers of the format's types of values.
enum class GgufType : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// Whole numbers and floats of a file are widened; `type` says what it holds (of an array: of its
// elements). Texts of an array lie elsewhere: in the file that was read, or with whoever writes.
struct GgufValue {
  using Scalar = std::variant<std::int64_t, std::uint64_t, double, bool, std::string>;
  using Array = std::variant<std::vector<std::int64_t>, std::vector<std::uint64_t>,
                             std::vector<double>, std::vector<bool>, std::vector<std::string_view>>;
  GgufType type = GgufType::kU32;
  std::variant<Scalar, Array> value;

  bool is_array() const { return value.index() == 1; }
};

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

struct GgufTensor {
  std::string name;
  std::uint32_t type = 0;
  std::vector<std::int64_t> shape;  // as torch has it: the dimension of neighbours last
  std::int64_t begin = 0;           // of its bytes, counted from the file's
  std::int64_t bytes = 0;
};

struct GgufHeader {
  std::uint32_t version = 3;
  std::int64_t alignment = 32;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the order of their bytes
};

// How many numbers lie in a block of a type of tensor, and how many bytes it has.
struct GgufBlock {
  const char* name;
  std::uint32_t type;
  std::int64_t numbers, bytes;
};
const GgufBlock* gguf_block(std::uint32_t type);  // null: unknown

// Reads and checks a whole file's bytes but for those of the tensors; `where` names it in errors.
// Texts of arrays are views into `file`.
GgufHeader parse_gguf(std::string_view file, const std::string& where);

struct GgufFile {
  std::shared_ptr<Mapping> mapping;
  GgufHeader header;  // with views into the mapping
};
GgufFile read_gguf(const std::filesystem::path& path);

// A tensor to be written: its bytes, as its type has them.
struct GgufBytes {
  std::string name;
  std::uint32_t type;
  std::vector<std::int64_t> shape;
  // Called once, when the tensor's turn has come; the bytes have been used at the next call.
  std::function<const void*()> data;
};
// Writes aside, flushes and renames. Version 3, aligned to 32 bytes.
void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                const std::vector<GgufBytes>& tensors);

}  // namespace omnima::io
