// Headers of safetensors files.
#include <algorithm>

#include "entries.h"
#include "omnima/core/error.h"
#include "omnima/io/json.h"
#include "omnima/io/safetensors_header.h"

namespace omnima::fuzz {
namespace {

constexpr std::size_t kPrefix = 8;

void run(std::string_view bytes) {
  io::SafetensorsHeader header;
  try {
    header = io::parse_safetensors(bytes, kWhere);
  } catch (const core::DataError& error) {
    return expect_named(error);
  }
  const auto size = static_cast<std::int64_t>(bytes.size());
  std::int64_t covered = header.data_start;
  for (const auto& entry : header.tensors) {
    expect(io::is_utf8(entry.name), "a name is not UTF-8");
    std::int64_t expected = io::kDtypes.at(entry.dtype).bytes;
    for (const std::int64_t dimension : entry.shape) expected *= dimension;
    expect(entry.end - entry.begin == expected, "the bytes do not fit the shape");
    expect(header.data_start + entry.begin == covered, "there is a hole or an overlap");
    covered = header.data_start + entry.end;
    expect(covered <= size, "a tensor lies beyond the file");
    if (entry.dtype != io::kBoolDtype) continue;
    try {
      io::check_bools(entry, bytes.data() + header.data_start + entry.begin, kWhere);
    } catch (const core::DataError& error) {
      expect_named(error);
    }
  }
  expect(covered == size, "bytes are left over");
}

std::string prefix(std::uint64_t length) {
  std::string bytes;
  for (std::size_t i = 0; i < kPrefix; ++i) bytes += static_cast<char>(length >> (8 * i));
  return bytes;
}

std::string file_of(const std::string& header, std::size_t data) {
  return prefix(header.size()) + header + std::string(data, '\1');
}

std::vector<std::string> seeds() {
  const auto one = [](const std::string& dtype, const std::string& shape,
                      const std::string& offsets) {
    return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
           offsets + "}}";
  };
  std::vector<std::string> all{
      "",
      prefix(0),
      file_of("{}", 0),
      file_of(R"({"__metadata__":{"format":"pt","n\u00e4me":"\ud83d\ude00 \"x\""}})", 0),
      file_of(R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
              R"("a":{"data_offsets":[12,20],"shape":[],"dtype":"F64"}}  )",
              20),
      file_of(one("F32", "[0,9223372036854775807]", "[0,0]"), 0),
      file_of(one("F32", "[4294967296,4294967296]", "[0,0]"), 0),
      file_of(one("U8", "[4]", "[0,4]"), 9),
      file_of(one("U8", "[4]", "[1,5]"), 5),
      file_of(R"({"w":{},"w":{}})", 0),
      prefix(~std::uint64_t{0}) + "{}",
      prefix(100'000'001) + "{}"};
  for (const auto& dtype : io::kDtypes) {
    const auto bytes = static_cast<std::size_t>(3 * dtype.bytes);
    all.push_back(file_of(one(dtype.name, "[3]", "[0," + std::to_string(bytes) + "]"), bytes));
  }
  return all;
}

// The length that the file says: up to the last brace.
void repair(std::string& bytes) {
  const std::size_t end = bytes.rfind('}');
  if (end == std::string::npos || end < kPrefix) return;
  bytes.replace(0, kPrefix, prefix(end + 1 - kPrefix));
}

}  // namespace

const Entry kSafetensors{"safetensors", run, seeds, repair};

}  // namespace omnima::fuzz
