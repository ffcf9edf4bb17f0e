#include "omnima/io/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <ostream>
#include <set>

#include "omnima/core/error.h"
#include "omnima/io/json.h"

namespace omnima::io {
namespace {

using core::DataError;
using core::message;
using core::require;

constexpr std::size_t kLongestKey = 65535;  // the format's own limit
constexpr std::uint32_t kMostDimensions = 4;
constexpr std::int64_t kMostAlignment = 1 << 20;
constexpr std::size_t kLeastPair = 8 + 4 + 1;            // key, type, the smallest value
constexpr std::size_t kLeastTensor = 8 + 4 + 8 + 4 + 8;  // name, dimensions, type, offset

// Sizes of the blocks as ggml has them.
constexpr std::array<GgufBlock, 33> kBlocks{{
    {"F32", 0, 1, 4},         {"F16", 1, 1, 2},         {"Q4_0", 2, 32, 18},
    {"Q4_1", 3, 32, 20},      {"Q5_0", 6, 32, 22},      {"Q5_1", 7, 32, 24},
    {"Q8_0", 8, 32, 34},      {"Q8_1", 9, 32, 40},      {"Q2_K", 10, 256, 84},
    {"Q3_K", 11, 256, 110},   {"Q4_K", 12, 256, 144},   {"Q5_K", 13, 256, 176},
    {"Q6_K", 14, 256, 210},   {"Q8_K", 15, 256, 292},   {"IQ2_XXS", 16, 256, 66},
    {"IQ2_XS", 17, 256, 74},  {"IQ3_XXS", 18, 256, 98}, {"IQ1_S", 19, 256, 50},
    {"IQ4_NL", 20, 32, 18},   {"IQ3_S", 21, 256, 110},  {"IQ2_S", 22, 256, 82},
    {"IQ4_XS", 23, 256, 136}, {"I8", 24, 1, 1},         {"I16", 25, 1, 2},
    {"I32", 26, 1, 4},        {"I64", 27, 1, 8},        {"F64", 28, 1, 8},
    {"IQ1_M", 29, 256, 56},   {"BF16", 30, 1, 2},       {"TQ1_0", 34, 256, 54},
    {"TQ2_0", 35, 256, 66},   {"MXFP4", 39, 32, 17},    {"NVFP4", 40, 64, 36},
}};

constexpr const char* kCutShort = ": it was cut short, or it is damaged. Fetch or save it again";

// Quoted only where an error is written.
struct Quoted {
  const std::string& name;
  friend std::ostream& operator<<(std::ostream& out, const Quoted& self) {
    return out << quote_json(self.name);
  }
};

// Takes little-endian values one by one; every failure names the file and what was being read.
class Reader {
 public:
  Reader(std::string_view file, const std::string& where) : file_(file), where_(where) {}

  std::size_t place() const { return at_; }
  std::size_t left() const { return file_.size() - at_; }
  // What is being read: "key", "tensor" or nothing, by its number as long as it has no name.
  void set_subject(const char* kind, std::uint64_t number = 0) {
    kind_ = kind;
    number_ = number;
    name_.reset();
  }
  void set_name(std::string_view name) { name_ = name; }

  [[noreturn]] void fail(const std::string& what) const {
    std::string subject;
    if (kind_ != nullptr) {
      subject = name_ ? message(", ", kind_, " ", quote_json(*name_))
                      : message(", ", kind_, " number ", number_);
    }
    throw DataError(message(where_, subject, ": ", what, "."));
  }
  void expect(bool holds, const char* what) const {
    if (!holds) fail(what);
  }

  template <class T>
  T number() {
    if (left() < sizeof(T)) {
      fail(message("the file ends at byte ", file_.size(), ", too early", kCutShort));
    }
    T value;
    std::memcpy(&value, file_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  // A view into the file.
  std::string_view text() {
    const auto length = number<std::uint64_t>();
    if (length > left()) {
      fail(message("a text claims ", length, " bytes, but only ", left(), " follow", kCutShort));
    }
    const std::string_view text = file_.substr(at_, static_cast<std::size_t>(length));
    expect(is_utf8(text), "a text is not valid UTF-8");
    at_ += text.size();
    return text;
  }

 private:
  std::string_view file_;
  const std::string& where_;
  const char* kind_ = nullptr;
  std::uint64_t number_ = 0;
  std::optional<std::string_view> name_;
  std::size_t at_ = 0;
};

std::size_t least_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    default:
      return 8;
  }
}

GgufType type_of(Reader& reader) {
  const auto type = reader.number<std::uint32_t>();
  if (type > static_cast<std::uint32_t>(GgufType::kF64)) {
    reader.fail(message("unknown type of value ", type, "; GGUF has 0 to 12"));
  }
  return static_cast<GgufType>(type);
}

bool boolean(Reader& reader) {
  const auto byte = reader.number<std::uint8_t>();
  reader.expect(byte <= 1, "a truth value is neither 0 nor 1");
  return byte == 1;
}

GgufValue::Scalar scalar(Reader& reader, GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return std::int64_t{reader.number<std::uint8_t>()};
    case GgufType::kI8:
      return std::int64_t{reader.number<std::int8_t>()};
    case GgufType::kU16:
      return std::int64_t{reader.number<std::uint16_t>()};
    case GgufType::kI16:
      return std::int64_t{reader.number<std::int16_t>()};
    case GgufType::kU32:
      return std::int64_t{reader.number<std::uint32_t>()};
    case GgufType::kI32:
      return std::int64_t{reader.number<std::int32_t>()};
    case GgufType::kI64:
      return reader.number<std::int64_t>();
    case GgufType::kU64:
      return reader.number<std::uint64_t>();
    case GgufType::kF32:
      return double{reader.number<float>()};
    case GgufType::kF64:
      return reader.number<double>();
    case GgufType::kBool:
      return boolean(reader);
    default:
      return std::string(reader.text());
  }
}

template <class Wide, class T>
std::vector<Wide> numbers(Reader& reader, std::size_t count) {
  std::vector<Wide> all;
  all.reserve(count);
  for (std::size_t i = 0; i < count; ++i) all.push_back(Wide{reader.number<T>()});
  return all;
}

std::vector<bool> booleans(Reader& reader, std::size_t count) {
  std::vector<bool> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = boolean(reader);
  return all;
}

std::vector<std::string_view> texts(Reader& reader, std::size_t count) {
  std::vector<std::string_view> all;
  all.reserve(count);
  for (std::size_t i = 0; i < count; ++i) all.push_back(reader.text());
  return all;
}

GgufValue::Array array(Reader& reader, GgufType type) {
  reader.expect(type != GgufType::kArray, "it holds arrays of arrays, which Omnima does not read");
  const auto count = reader.number<std::uint64_t>();
  if (count > reader.left() / least_bytes(type)) {
    reader.fail(message("its array claims ", count, " elements, but only ", reader.left(),
                        " bytes follow", kCutShort));
  }
  const auto size = static_cast<std::size_t>(count);
  switch (type) {
    case GgufType::kU8:
      return numbers<std::int64_t, std::uint8_t>(reader, size);
    case GgufType::kI8:
      return numbers<std::int64_t, std::int8_t>(reader, size);
    case GgufType::kU16:
      return numbers<std::int64_t, std::uint16_t>(reader, size);
    case GgufType::kI16:
      return numbers<std::int64_t, std::int16_t>(reader, size);
    case GgufType::kU32:
      return numbers<std::int64_t, std::uint32_t>(reader, size);
    case GgufType::kI32:
      return numbers<std::int64_t, std::int32_t>(reader, size);
    case GgufType::kI64:
      return numbers<std::int64_t, std::int64_t>(reader, size);
    case GgufType::kU64:
      return numbers<std::uint64_t, std::uint64_t>(reader, size);
    case GgufType::kF32:
      return numbers<double, float>(reader, size);
    case GgufType::kF64:
      return numbers<double, double>(reader, size);
    case GgufType::kBool:
      return booleans(reader, size);
    default:
      return texts(reader, size);
  }
}

GgufValue value_of(Reader& reader) {
  GgufValue value;
  value.type = type_of(reader);
  if (value.type == GgufType::kArray) {
    value.type = type_of(reader);
    value.value = array(reader, value.type);
  } else {
    value.value = scalar(reader, value.type);
  }
  return value;
}

std::int64_t alignment_of(const GgufValue& value, const Reader& reader) {
  const auto* found =
      value.is_array() ? nullptr : std::get_if<std::int64_t>(&std::get<0>(value.value));
  reader.expect(found != nullptr && value.type == GgufType::kU32, "it must be a U32 number");
  const std::int64_t alignment = *found;
  if (alignment < 8 || alignment > kMostAlignment || (alignment & (alignment - 1)) != 0) {
    reader.fail(
        message("alignment ", alignment, " is not a power of two between 8 and ", kMostAlignment));
  }
  return alignment;
}

void read_metadata(Reader& reader, std::uint64_t count, GgufHeader& header) {
  std::set<std::string_view> seen;
  for (std::uint64_t i = 0; i < count; ++i) {
    reader.set_subject("key", i);
    const std::string_view key = reader.text();
    reader.expect(!key.empty() && key.size() <= kLongestKey, "its name is empty or too long");
    reader.set_name(key);
    reader.expect(seen.insert(key).second, "it stands twice");
    GgufValue value = value_of(reader);
    if (key == "general.alignment") header.alignment = alignment_of(value, reader);
    header.metadata.emplace_back(std::string(key), std::move(value));
  }
}

// The bytes of a tensor; its dimensions lie in the file with that of neighbours first.
std::int64_t bytes_of(const Reader& reader, const GgufBlock& block,
                      const std::vector<std::int64_t>& shape) {
  std::int64_t numbers = 1;
  for (const std::int64_t dimension : shape) {
    if (__builtin_mul_overflow(numbers, dimension, &numbers)) {
      reader.fail("its shape overflows: more numbers than 63 bits can count");
    }
  }
  if (shape.back() % block.numbers != 0) {
    reader.fail(message("its rows of ", shape.back(), " numbers are no whole blocks of ",
                        block.name, ", which hold ", block.numbers));
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(numbers / block.numbers, block.bytes, &bytes)) {
    reader.fail("its shape overflows: more bytes than 63 bits can count");
  }
  return bytes;
}

GgufTensor tensor_of(Reader& reader, std::uint64_t index) {
  GgufTensor tensor;
  reader.set_subject("tensor", index);
  const std::string_view name = reader.text();
  reader.set_name(name);
  tensor.name = name;
  reader.expect(!tensor.name.empty(), "its name is empty");
  const auto dimensions = reader.number<std::uint32_t>();
  if (dimensions < 1 || dimensions > kMostDimensions) {
    reader.fail(message("it has ", dimensions, " dimensions, not 1 to ", kMostDimensions));
  }
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader.number<std::uint64_t>();
    if (size == 0 || size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      reader.fail(message("dimension ", i, " is ", size, ", not 1 to 2^63 - 1"));
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));
  }
  tensor.type = reader.number<std::uint32_t>();
  const GgufBlock* block = gguf_block(tensor.type);
  if (block == nullptr) reader.fail(message("unknown type ", tensor.type));
  tensor.bytes = bytes_of(reader, *block, tensor.shape);
  const auto offset = reader.number<std::uint64_t>();
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    reader.fail(message("its offset ", offset, " lies beyond any file"));
  }
  tensor.begin = static_cast<std::int64_t>(offset);
  return tensor;
}

std::int64_t aligned(std::int64_t place, std::int64_t alignment) {
  return (place + alignment - 1) / alignment * alignment;
}

// The tensors must cover the data: no overlap, no hole but for alignment, nothing missing or left.
void check_cover(GgufHeader& header, std::int64_t available, const std::string& where) {
  auto& tensors = header.tensors;
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return a.begin < b.begin; });
  std::int64_t end = 0;
  for (const auto& tensor : tensors) {
    const Quoted name{tensor.name};
    const std::int64_t expected = aligned(end, header.alignment);
    require<DataError>(tensor.begin % header.alignment == 0, where, ", tensor ", name,
                       ": its offset ", tensor.begin, " is no multiple of the alignment ",
                       header.alignment, ".");
    require<DataError>(tensor.begin >= expected, where, ", tensor ", name, ": begins at byte ",
                       tensor.begin, " of the data and overlaps another one that ends at ", end,
                       ".");
    require<DataError>(tensor.begin == expected, where, ", tensor ", name, ": bytes ", expected,
                       " to ", tensor.begin, " before it belong to no tensor (a hole).");
    require<DataError>(tensor.bytes <= available && tensor.begin <= available - tensor.bytes, where,
                       ", tensor ", name, ": it has ", tensor.bytes, " bytes from ", tensor.begin,
                       " on, but the file holds only ", available,
                       " bytes of data: it was cut short. Fetch or save it again.");
    end = tensor.begin + tensor.bytes;
  }
  require<DataError>(available <= aligned(end, header.alignment), where, ": ", available - end,
                     " bytes follow the last tensor and belong to none.");
}

}  // namespace

const GgufBlock* gguf_block(std::uint32_t type) {
  const auto* found = std::find_if(kBlocks.begin(), kBlocks.end(),
                                   [&](const GgufBlock& each) { return each.type == type; });
  return found == kBlocks.end() ? nullptr : found;
}

GgufHeader parse_gguf(std::string_view file, const std::string& where) {
  require<DataError>(!file.empty(), where, " is empty (0 bytes).");
  require<DataError>(file.substr(0, 4) == "GGUF", where,
                     " is not a GGUF file: it does not begin with \"GGUF\".");
  GgufHeader header;
  Reader reader(file, where);
  reader.number<std::uint32_t>();
  header.version = reader.number<std::uint32_t>();
  if (header.version == 0x02000000 || header.version == 0x03000000) {
    reader.fail("it is big-endian, which Omnima does not read");
  }
  if (header.version != 2 && header.version != 3) {
    reader.fail(message("its version is ", header.version, "; Omnima reads 2 and 3"));
  }
  const auto tensors = reader.number<std::uint64_t>(), pairs = reader.number<std::uint64_t>();
  if (pairs > reader.left() / kLeastPair) {
    reader.fail(message("it claims ", pairs, " keys, but only ", reader.left(), " bytes follow",
                        kCutShort));
  }
  read_metadata(reader, pairs, header);
  reader.set_subject(nullptr);
  if (tensors > reader.left() / kLeastTensor) {
    reader.fail(message("it claims ", tensors, " tensors, but only ", reader.left(),
                        " bytes follow", kCutShort));
  }
  std::set<std::string> names;
  for (std::uint64_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(tensor_of(reader, i));
    reader.expect(names.insert(header.tensors.back().name).second, "it stands twice");
  }
  const auto size = static_cast<std::int64_t>(file.size());
  const std::int64_t start = aligned(static_cast<std::int64_t>(reader.place()), header.alignment);
  check_cover(header, std::max<std::int64_t>(0, size - start), where);
  for (auto& tensor : header.tensors) tensor.begin += start;
  return header;
}

GgufFile read_gguf(const std::filesystem::path& path) {
  GgufFile file;
  file.mapping = Mapping::open(path);
  file.header = parse_gguf(file.mapping->bytes(), path.string());
  return file;
}

}  // namespace omnima::io
