// GGUF files: header, keys, descriptions of tensors, and the numbers of those that Omnima reads.
#include <cstring>

#include "entries.h"
#include "omnima/core/error.h"
#include "omnima/io/gguf.h"
#include "omnima/quant/format.h"

namespace omnima::fuzz {
namespace {

// Of memory that is exactly so large: one byte too far is a finding.
void dequantize(const io::GgufTensor& tensor, std::string_view file) {
  const quant::Format* format = quant::format_of_gguf_type(tensor.type);
  if (format == nullptr) return;
  const io::GgufBlock* block = io::gguf_block(tensor.type);
  expect(block != nullptr && block->numbers == format->numbers && block->bytes == format->bytes,
         "a format and its type differ in the size of a block");
  const std::string_view bytes =
      file.substr(static_cast<std::size_t>(tensor.begin), static_cast<std::size_t>(tensor.bytes));
  const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
  const std::int64_t blocks = tensor.bytes / format->bytes;
  std::vector<float> numbers(static_cast<std::size_t>(blocks * format->numbers));
  format->dequantize(exact.data(), blocks, numbers.data());
}

void run(std::string_view bytes) {
  io::GgufHeader header;
  try {
    header = io::parse_gguf(bytes, kWhere);
  } catch (const core::DataError& error) {
    return expect_named(error);
  }
  std::int64_t covered = 0;
  for (const auto& tensor : header.tensors) {
    expect(tensor.begin >= covered && tensor.begin % 8 == 0, "a tensor overlaps another one");
    covered = tensor.begin + tensor.bytes;
    expect(covered <= static_cast<std::int64_t>(bytes.size()), "a tensor lies beyond the file");
    dequantize(tensor, bytes);
  }
}

template <class T>
std::string little(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

std::string text(std::string_view value) {
  return little<std::uint64_t>(value.size()) + std::string(value);
}

std::string key(std::string_view name, io::GgufType type, const std::string& value) {
  return text(name) + little(static_cast<std::uint32_t>(type)) + value;
}

std::string list(io::GgufType type, std::uint64_t count, const std::string& values) {
  return little(static_cast<std::uint32_t>(type)) + little(count) + values;
}

std::string file_of(std::uint64_t tensors, std::uint64_t keys, const std::string& rest) {
  return "GGUF" + little<std::uint32_t>(3) + little(tensors) + little(keys) + rest;
}

std::string tensor_of(std::string_view name, const std::vector<std::uint64_t>& sizes,
                      std::uint32_t type, std::uint64_t offset) {
  std::string bytes = text(name) + little(static_cast<std::uint32_t>(sizes.size()));
  for (const std::uint64_t size : sizes) bytes += little(size);
  return bytes + little(type) + little(offset);
}

std::string padded(std::string bytes, std::size_t to = 32) {
  bytes.resize((bytes.size() + to - 1) / to * to, '\0');
  return bytes;
}

std::string with_all_keys() {
  using io::GgufType;
  const std::string keys =
      key("general.alignment", GgufType::kU32, little<std::uint32_t>(64)) +
      key("u8", GgufType::kU8, "\xff") + key("i8", GgufType::kI8, "\xff") +
      key("u16", GgufType::kU16, "12") + key("i16", GgufType::kI16, "12") +
      key("i32", GgufType::kI32, "1234") + key("f32", GgufType::kF32, little(0.5f)) +
      key("bool", GgufType::kBool, "\1") + key("text", GgufType::kString, text("h\u00e9")) +
      key("u64", GgufType::kU64, "12345678") + key("i64", GgufType::kI64, "12345678") +
      key("f64", GgufType::kF64, little(1e300)) +
      key("texts", GgufType::kArray, list(GgufType::kString, 2, text("a") + text(""))) +
      key("bools", GgufType::kArray, list(GgufType::kBool, 2, std::string("\0\1", 2))) +
      key("floats", GgufType::kArray, list(GgufType::kF32, 1, little(1.5f))) +
      key("numbers", GgufType::kArray, list(GgufType::kI16, 2, "1234")) +
      key("naturals", GgufType::kArray, list(GgufType::kU64, 1, "12345678"));
  const std::string tensors =
      tensor_of("a", {3, 2}, 0, 0) + tensor_of("b", {1}, 1, 64) + tensor_of("c", {2}, 30, 128);
  return padded(file_of(3, 17, keys + tensors), 64) + std::string(132, '\1');
}

std::vector<std::string> seeds() {
  using io::GgufType;
  constexpr std::uint64_t kMany = std::uint64_t{1} << 40, kMost = ~std::uint64_t{0} >> 1;
  std::vector<std::string> all{
      "",
      "GGUF",
      file_of(0, 0, ""),
      with_all_keys(),
      file_of(0, kMany, ""),
      file_of(kMany, 0, ""),
      file_of(0, 1, key("k", GgufType::kArray, list(GgufType::kU8, kMany, ""))),
      file_of(0, 1, key("k", GgufType::kArray, list(GgufType::kArray, 1, ""))),
      file_of(0, 1, little(std::uint64_t{1} << 30)),
      padded(file_of(1, 0, tensor_of("w", {kMost, kMost}, 0, 0))),
      padded(file_of(1, 0, tensor_of("w", {256, 1, 1, kMost / 256}, 15, 0))),
      padded(file_of(2, 0, tensor_of("w", {8}, 0, 0) + tensor_of("w", {8}, 0, 32))) +
          std::string(64, '\1')};
  for (const quant::Format* format : quant::formats()) {
    if (!format->gguf_type) continue;
    const auto numbers = static_cast<std::uint64_t>(format->numbers);
    const auto bytes = static_cast<std::size_t>(format->bytes);
    for (const char fill : {'\0', '\x5a', '\xff'}) {
      all.push_back(padded(file_of(1, 0, tensor_of("w", {numbers, 2}, *format->gguf_type, 0))) +
                    std::string(2 * bytes, fill));
    }
  }
  return all;
}

}  // namespace

const Entry kGguf{"gguf", run, seeds, nullptr};

}  // namespace omnima::fuzz
