// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without
// gaps. Files are untrusted: the header is checked against the file's size before anything is
// allocated.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace omnima::io {

struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;  // of its bytes, counted from the end of the header
  std::int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
  std::int64_t data_start = 0;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Reads and checks the header of a whole file's bytes; `where` names the file in errors.
SafetensorsHeader parse_safetensors(std::string_view file, const std::string& where);

// Tensors that share the file's (copy-on-write) mapping and keep it alive.
struct SafetensorsFile {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};
SafetensorsFile read_safetensors(const std::filesystem::path& path);

// Writes aside, flushes and renames; an error leaves a file that was there before as it was.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Names of the floating-point tensors that hold a NaN or an infinity.
std::vector<std::string> nonfinite_names(const NamedTensors& tensors);

}  // namespace omnima::io
