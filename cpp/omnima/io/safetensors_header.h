// The header of a safetensors file: which tensors it holds and where. Files are untrusted: every
// number is checked against the file's size before anything is allocated.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace omnima::io {

constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's own limit

struct SafetensorsDtype {
  const char* name;
  std::int64_t bytes;  // of an element
};
constexpr std::array<SafetensorsDtype, 10> kDtypes{{{"F64", 8},
                                                    {"F32", 4},
                                                    {"F16", 2},
                                                    {"BF16", 2},
                                                    {"I64", 8},
                                                    {"I32", 4},
                                                    {"I16", 2},
                                                    {"I8", 1},
                                                    {"U8", 1},
                                                    {"BOOL", 1}}};
constexpr std::size_t kBoolDtype = 9;
std::string known_dtypes();  // for errors

struct TensorEntry {
  std::string name;
  std::size_t dtype = 1;  // its place in kDtypes
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;  // of its bytes, counted from the end of the header
  std::int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
  std::int64_t data_start = 0;
};

// Reads and checks the header of a whole file's bytes; `where` names the file in errors.
SafetensorsHeader parse_safetensors(std::string_view file, const std::string& where);

// Refuses other bytes than 0 and 1 in a tensor of truth values, whose bytes begin at `data`: they
// are undefined behaviour in the code that reads them.
void check_bools(const TensorEntry& entry, const char* data, const std::string& where);

}  // namespace omnima::io
