#include "omnima/io/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "omnima/core/error.h"
#include "omnima/core/scratch_file.h"
#include "omnima/io/durable_file.h"
#include "omnima/io/json.h"
#include "omnima/io/mapping.h"

namespace omnima::io {
namespace {

using core::DataError;
using core::message;
using core::require;

constexpr std::size_t kPrefix = 8;
constexpr std::size_t kPieceBytes = std::size_t{4} << 20;

// As kDtypes has them.
constexpr std::array<at::ScalarType, kDtypes.size()> kTypes{
    at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
    at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

const char* dtype_name(at::ScalarType dtype, const std::string& tensor) {
  const auto found = std::find(kTypes.begin(), kTypes.end(), dtype);
  if (found != kTypes.end()) return kDtypes[static_cast<std::size_t>(found - kTypes.begin())].name;
  throw DataError(message("Tensor ", quote_json(tensor), " has dtype ", c10::toString(dtype),
                          ", which safetensors files of Omnima do not hold; they hold ",
                          known_dtypes(), "."));
}

at::Tensor map_tensor(const TensorEntry& entry, const std::shared_ptr<Mapping>& mapping,
                      std::int64_t data_start, const std::string& where) {
  const auto options = at::TensorOptions().dtype(kTypes[entry.dtype]);
  if (entry.begin == entry.end) return at::empty(entry.shape, options);
  char* data = mapping->data() + data_start + entry.begin;
  if (entry.dtype == kBoolDtype) check_bools(entry, data, where);
  const auto width = static_cast<std::uintptr_t>(kDtypes[entry.dtype].bytes);
  if (reinterpret_cast<std::uintptr_t>(data) % width == 0) {
    return at::from_blob(data, entry.shape, [mapping](void*) {}, options);
  }
  at::Tensor copy = at::empty(entry.shape, options);  // a writer that did not align its data
  std::memcpy(copy.data_ptr(), data, static_cast<std::size_t>(entry.end - entry.begin));
  return copy;
}

// The header text, padded with spaces so that the data starts at a multiple of 8.
std::string format_header(const NamedTensors& tensors,
                          const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      require<DataError>(is_utf8(key) && is_utf8(value), "Metadata of a safetensors file must be ",
                         "valid UTF-8; the value of ", key, " is not.");
      text += quote_json(key) + ":" + quote_json(value) + ",";
    }
    text.back() = '}';
    text += ',';
  }
  std::int64_t place = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto end = place + static_cast<std::int64_t>(tensor.nbytes());
    text += quote_json(name) + ":{\"dtype\":\"" + dtype_name(tensor.scalar_type(), name) +
            "\",\"shape\":[";
    for (std::int64_t i = 0; i < tensor.dim(); ++i) {
      text += (i ? "," : "") + std::to_string(tensor.size(i));
    }
    text += message("],\"data_offsets\":[", place, ",", end, "]},");
    place = end;
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  require<DataError>(text.size() <= kLongestHeader, "The names of these tensors make a header of ",
                     text.size(), " bytes; safetensors allows ", kLongestHeader, ".");
  return text;
}

// Checks the tensors and brings them into the order of the file: widest elements first, so that
// every tensor is aligned, then by name.
NamedTensors ordered(const NamedTensors& tensors) {
  NamedTensors sorted;
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    require<DataError>(is_utf8(name) && name != "__metadata__", "The tensor name ",
                       is_utf8(name) ? quote_json(name) : "given",
                       " cannot stand in a safetensors ",
                       "file: it must be valid UTF-8 and not __metadata__.");
    require<DataError>(names.insert(name).second, "The tensor ", quote_json(name),
                       " is given twice.");
    require<DataError>(tensor.defined() && tensor.layout() == at::kStrided, "The tensor ",
                       quote_json(name), " is not a dense tensor.");
    dtype_name(tensor.scalar_type(), name);
    sorted.emplace_back(name, tensor);
  }
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    const auto width = [](const auto& pair) { return pair.second.element_size(); };
    return width(a) != width(b) ? width(a) > width(b) : a.first < b.first;
  });
  return sorted;
}

// Whether any element has all exponent bits set, which is how NaN and infinity look.
template <class Bits>
bool any_special(const void* data, std::int64_t count, Bits exponent) {
  const auto* bits = static_cast<const Bits*>(data);
  bool special = false;
  for (std::int64_t i = 0; i < count; ++i) special |= (bits[i] & exponent) == exponent;
  return special;
}

bool has_nonfinite(const at::Tensor& given) {
  const at::Tensor tensor = given.detach().cpu().contiguous();
  const void* data = tensor.const_data_ptr();
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return any_special<std::uint64_t>(data, tensor.numel(), 0x7FF0000000000000U);
    case at::kFloat:
      return any_special<std::uint32_t>(data, tensor.numel(), 0x7F800000U);
    case at::kHalf:
      return any_special<std::uint16_t>(data, tensor.numel(), 0x7C00U);
    case at::kBFloat16:
      return any_special<std::uint16_t>(data, tensor.numel(), 0x7F80U);
    default:
      return false;
  }
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& path, bool ahead) {
  const auto mapping = Mapping::open(path);
  if (ahead) mapping->read_ahead();
  const std::string where = path.string();
  SafetensorsHeader header = parse_safetensors(mapping->bytes(), where);
  SafetensorsFile file;
  file.metadata = std::move(header.metadata);
  for (const auto& entry : header.tensors) {
    file.tensors.emplace_back(entry.name, map_tensor(entry, mapping, header.data_start, where));
  }
  return file;
}

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const NamedTensors sorted = ordered(tensors);
  const std::string header = format_header(sorted, metadata);
  DurableFile file(path);
  std::array<unsigned char, kPrefix> length{};
  for (std::size_t i = 0; i < kPrefix; ++i) {
    length[i] = static_cast<unsigned char>(header.size() >> (8 * i));
  }
  file.write(length.data(), length.size());
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : sorted) {
    const at::Tensor plain = tensor.detach().cpu().contiguous();
    const auto* bytes = static_cast<const char*>(plain.const_data_ptr());
    for (std::size_t at = 0; at < plain.nbytes(); at += kPieceBytes) {
      const std::size_t count = std::min(kPieceBytes, plain.nbytes() - at);
      file.write(bytes + at, count);
      core::let_go(bytes + at, count);
    }
  }
  file.commit();
}

std::vector<std::string> nonfinite_names(const NamedTensors& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (has_nonfinite(tensor)) names.push_back(name);
  }
  return names;
}

}  // namespace omnima::io
