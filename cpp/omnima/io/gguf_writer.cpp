// Writing of gguf.h: the header as one piece, then the tensors.
#include <cstring>
#include <set>
#include <type_traits>

#include "omnima/core/error.h"
#include "omnima/io/durable_file.h"
#include "omnima/io/gguf.h"
#include "omnima/io/json.h"

namespace omnima::io {
namespace {

using core::DataError;
using core::require;

constexpr std::int64_t kAlignment = 32;
constexpr std::uint32_t kVersion = 3;

template <class T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_string(std::string& out, std::string_view text) {
  require<DataError>(is_utf8(text), "A text for a GGUF file is not valid UTF-8.");
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

void put_scalar(std::string& out, GgufType type, const GgufValue::Scalar& value) {
  const auto whole = [&]() -> std::int64_t {
    if (const auto* natural = std::get_if<std::uint64_t>(&value)) {
      return static_cast<std::int64_t>(*natural);
    }
    return std::get<std::int64_t>(value);
  };
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
      return put(out, static_cast<std::int8_t>(whole()));
    case GgufType::kU16:
    case GgufType::kI16:
      return put(out, static_cast<std::int16_t>(whole()));
    case GgufType::kU32:
    case GgufType::kI32:
      return put(out, static_cast<std::int32_t>(whole()));
    case GgufType::kU64:
    case GgufType::kI64:
      return put(out, whole());
    case GgufType::kF32:
      return put(out, static_cast<float>(std::get<double>(value)));
    case GgufType::kF64:
      return put(out, std::get<double>(value));
    case GgufType::kBool:
      return put(out, static_cast<std::uint8_t>(std::get<bool>(value)));
    default:
      return put_string(out, std::get<std::string>(value));
  }
}

void put_value(std::string& out, const GgufValue& value) {
  if (!value.is_array()) {
    put(out, static_cast<std::uint32_t>(value.type));
    return put_scalar(out, value.type, std::get<0>(value.value));
  }
  put(out, static_cast<std::uint32_t>(GgufType::kArray));
  put(out, static_cast<std::uint32_t>(value.type));
  std::visit(
      [&](const auto& all) {
        put(out, static_cast<std::uint64_t>(all.size()));
        for (const auto& each : all) {
          using T = typename std::decay_t<decltype(all)>::value_type;
          if constexpr (std::is_same_v<T, std::string_view>) {
            put_string(out, each);
          } else {
            put_scalar(out, value.type, GgufValue::Scalar(T(each)));
          }
        }
      },
      std::get<1>(value.value));
}

std::int64_t bytes_of(const GgufBytes& tensor) {
  const GgufBlock* block = gguf_block(tensor.type);
  require<DataError>(
      block != nullptr && !tensor.shape.empty() && tensor.shape.back() % block->numbers == 0,
      "Tensor ", quote_json(tensor.name), " is of the unknown type ", tensor.type,
      " or of rows that are no whole blocks of it.");
  std::int64_t numbers = 1;
  for (const std::int64_t dimension : tensor.shape) numbers *= dimension;
  return numbers / block->numbers * block->bytes;
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                const std::vector<GgufBytes>& tensors) {
  std::string header = "GGUF";
  put(header, kVersion);
  put(header, static_cast<std::uint64_t>(tensors.size()));
  put(header, static_cast<std::uint64_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    put_string(header, key);
    put_value(header, value);
  }
  std::set<std::string> names;
  std::int64_t place = 0;
  for (const auto& tensor : tensors) {
    require<DataError>(names.insert(tensor.name).second, "The tensor ", quote_json(tensor.name),
                       " is given twice.");
    put_string(header, tensor.name);
    put(header, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto each = tensor.shape.rbegin(); each != tensor.shape.rend(); ++each) {
      put(header, static_cast<std::uint64_t>(*each));
    }
    put(header, tensor.type);
    put(header, static_cast<std::uint64_t>(place));
    place += (bytes_of(tensor) + kAlignment - 1) / kAlignment * kAlignment;
  }
  const auto fill = [](std::int64_t size) {
    return std::string(static_cast<std::size_t>((kAlignment - size % kAlignment) % kAlignment),
                       '\0');
  };
  header += fill(static_cast<std::int64_t>(header.size()));
  DurableFile file(path);
  file.write(header.data(), header.size());
  for (const auto& tensor : tensors) {
    const std::int64_t bytes = bytes_of(tensor);
    file.write(tensor.data(), static_cast<std::size_t>(bytes));
    const std::string padding = fill(bytes);
    file.write(padding.data(), padding.size());
  }
  file.commit();
}

}  // namespace omnima::io
