#include "omnima/io/safetensors_header.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "omnima/core/error.h"
#include "omnima/io/json.h"

namespace omnima::io {
namespace {

using core::DataError;
using core::message;
using core::require;

constexpr std::size_t kMostDimensions = 64;
constexpr std::size_t kPrefix = 8;

std::size_t dtype_named(const std::string& name, const JsonReader& reader) {
  for (std::size_t i = 0; i < kDtypes.size(); ++i) {
    if (name == kDtypes[i].name) return i;
  }
  reader.fail(message("unknown dtype ", quote_json(name), "; Omnima reads ", known_dtypes()));
}

// The bytes of `shape`. Empty dimensions count as 1 in the overflow check, as in torch's strides.
std::int64_t checked_bytes(const TensorEntry& entry, const JsonReader& reader) {
  std::int64_t bytes = kDtypes[entry.dtype].bytes;
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
      entry.dtype = dtype_named(reader.string(), reader);
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

}  // namespace

std::string known_dtypes() {
  std::string list;
  for (const auto& known : kDtypes) list += (list.empty() ? "" : ", ") + std::string(known.name);
  return list;
}

void check_bools(const TensorEntry& entry, const char* data, const std::string& where) {
  const auto size = static_cast<std::size_t>(entry.end - entry.begin);
  const bool proper =
      std::all_of(data, data + size, [](char c) { return static_cast<unsigned char>(c) <= 1; });
  require<DataError>(proper, where, ", tensor ", quote_json(entry.name),
                     ": holds bytes other than 0 and 1, but its dtype is BOOL.");
}

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

}  // namespace omnima::io
