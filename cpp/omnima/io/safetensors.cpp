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

constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's own limit
constexpr std::size_t kMostDimensions = 64;
constexpr std::size_t kPrefix = 8;
constexpr std::size_t kPieceBytes = std::size_t{4} << 20;

struct DtypeName {
  const char* name;
  at::ScalarType dtype;
};
constexpr std::array<DtypeName, 10> kDtypes{{{"F64", at::kDouble},
                                             {"F32", at::kFloat},
                                             {"F16", at::kHalf},
                                             {"BF16", at::kBFloat16},
                                             {"I64", at::kLong},
                                             {"I32", at::kInt},
                                             {"I16", at::kShort},
                                             {"I8", at::kChar},
                                             {"U8", at::kByte},
                                             {"BOOL", at::kBool}}};

std::string known_dtypes() {
  std::string list;
  for (const auto& known : kDtypes) list += (list.empty() ? "" : ", ") + std::string(known.name);
  return list;
}

at::ScalarType parse_dtype(const std::string& name, const JsonReader& reader) {
  for (const auto& known : kDtypes) {
    if (name == known.name) return known.dtype;
  }
  reader.fail(message("unknown dtype ", quote_json(name), "; Omnima reads ", known_dtypes()));
}

const char* dtype_name(at::ScalarType dtype, const std::string& tensor) {
  for (const auto& known : kDtypes) {
    if (dtype == known.dtype) return known.name;
  }
  throw DataError(message("Tensor ", quote_json(tensor), " has dtype ", c10::toString(dtype),
                          ", which safetensors files of Omnima do not hold; they hold ",
                          known_dtypes(), "."));
}

// The bytes of `shape`. Empty dimensions count as 1 in the overflow check, as in torch's strides.
std::int64_t checked_bytes(const TensorEntry& entry, const JsonReader& reader) {
  auto bytes = static_cast<std::int64_t>(c10::elementSize(entry.dtype));
  bool empty = false;
  for (const std::int64_t dimension : entry.shape) {
    empty = empty || dimension == 0;
    if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(dimension, 1), &bytes)) {
      reader.fail("its shape overflows: more bytes than 63 bits can count");
    }
  }
  return empty ? 0 : bytes;
}

TensorEntry parse_entry(JsonReader& reader, const std::string& name) {
  TensorEntry entry;
  entry.name = name;
  std::vector<std::int64_t> offsets;
  std::set<std::string> seen;
  reader.object([&](const std::string& key) {
    seen.insert(key);
    if (key == "dtype") {
      entry.dtype = parse_dtype(reader.string(), reader);
    } else if (key == "shape") {
      reader.array([&] {
        if (entry.shape.size() == kMostDimensions) {
          reader.fail(message("more than ", kMostDimensions, " dimensions"));
        }
        entry.shape.push_back(reader.natural());
      });
    } else if (key == "data_offsets") {
      reader.array([&] {
        if (offsets.size() == 2) reader.fail("data_offsets holds more than two numbers");
        offsets.push_back(reader.natural());
      });
    } else {
      reader.fail(
          message("unknown key ", quote_json(key), "; a tensor has dtype, shape and data_offsets"));
    }
  });
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!seen.count(key)) reader.fail(message("the key \"", key, "\" is missing"));
  }
  if (offsets.size() != 2) reader.fail("data_offsets must hold two numbers");
  entry.begin = offsets[0];
  entry.end = offsets[1];
  if (entry.end < entry.begin) {
    reader.fail(message("its bytes end (", entry.end, ") before they begin (", entry.begin, ")"));
  }
  const std::int64_t bytes = checked_bytes(entry, reader);
  if (bytes != entry.end - entry.begin) {
    reader.fail(message("dtype and shape ask for ", bytes, " bytes, but data_offsets give ",
                        entry.end - entry.begin));
  }
  return entry;
}

// The tensors must cover the data exactly: no overlap, no hole, nothing missing, nothing left.
void check_cover(std::vector<TensorEntry>& tensors, std::int64_t available,
                 const std::string& where) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::int64_t covered = 0;
  for (const auto& entry : tensors) {
    const std::string name = quote_json(entry.name);
    require<DataError>(entry.end <= available, where, ", tensor ", name, ": its bytes end at ",
                       entry.end, ", but the file holds only ", available,
                       " bytes of data: the file was cut short. Fetch or save it again.");
    require<DataError>(entry.begin >= covered, where, ", tensor ", name, ": begins at byte ",
                       entry.begin, " and overlaps another tensor that ends at ", covered, ".");
    require<DataError>(entry.begin <= covered, where, ", tensor ", name, ": bytes ", covered,
                       " to ", entry.begin, " before it belong to no tensor (a hole).");
    covered = entry.end;
  }
  require<DataError>(covered == available, where, ": ", available - covered,
                     " bytes follow the last tensor and belong to none.");
}

std::uint64_t read_length(std::string_view file) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kPrefix; ++i) {
    length |= static_cast<std::uint64_t>(static_cast<unsigned char>(file[i])) << (8 * i);
  }
  return length;
}

// Other bytes than 0 and 1 in a bool tensor are undefined behaviour in the code that reads them.
void check_bools(const TensorEntry& entry, const char* data, const std::string& where) {
  const auto size = static_cast<std::size_t>(entry.end - entry.begin);
  const bool proper =
      std::all_of(data, data + size, [](char c) { return static_cast<unsigned char>(c) <= 1; });
  require<DataError>(proper, where, ", tensor ", quote_json(entry.name),
                     ": holds bytes other than 0 and 1, but its dtype is BOOL.");
}

at::Tensor map_tensor(const TensorEntry& entry, const std::shared_ptr<Mapping>& mapping,
                      std::int64_t data_start, const std::string& where) {
  const auto options = at::TensorOptions().dtype(entry.dtype);
  if (entry.begin == entry.end) return at::empty(entry.shape, options);
  char* data = mapping->data() + data_start + entry.begin;
  if (entry.dtype == at::kBool) check_bools(entry, data, where);
  if (reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(entry.dtype) == 0) {
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

SafetensorsHeader parse_safetensors(std::string_view file, const std::string& where) {
  require<DataError>(!file.empty(), where, " is empty (0 bytes).");
  require<DataError>(file.size() >= kPrefix, where, " holds ", file.size(),
                     " bytes, too few for a safetensors file: it was cut short.");
  const std::uint64_t length = read_length(file);
  require<DataError>(length <= kLongestHeader, where, ": the header claims ", length,
                     " bytes; safetensors allows ", kLongestHeader,
                     ". This is not a safetensors file.");
  require<DataError>(length <= file.size() - kPrefix, where, ": the header claims ", length,
                     " bytes, but only ", file.size() - kPrefix,
                     " follow: the file was cut short.");
  SafetensorsHeader header;
  header.data_start = static_cast<std::int64_t>(kPrefix + length);
  JsonReader reader(file.substr(kPrefix, length), where);
  reader.object([&](const std::string& name) {
    if (name == "__metadata__") {
      reader.object([&](const std::string& key) { header.metadata[key] = reader.string(); });
      return;
    }
    reader.set_subject(name);
    header.tensors.push_back(parse_entry(reader, name));
    reader.set_subject("");
  });
  reader.finish();
  check_cover(header.tensors, static_cast<std::int64_t>(file.size()) - header.data_start, where);
  return header;
}

SafetensorsFile read_safetensors(const std::filesystem::path& path) {
  const auto mapping = Mapping::open(path);
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
