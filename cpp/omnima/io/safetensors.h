// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without
// gaps. Files are untrusted: the header is checked against the file's size before anything is
// allocated.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "omnima/io/safetensors_header.h"

namespace omnima::io {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Tensors that share the file's (copy-on-write) mapping and keep it alive.
struct SafetensorsFile {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};
// ahead: the whole file will be read soon.
SafetensorsFile read_safetensors(const std::filesystem::path& path, bool ahead = false);

// Writes aside, flushes and renames; an error leaves a file that was there before as it was.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Names of the floating-point tensors that hold a NaN or an infinity.
std::vector<std::string> nonfinite_names(const NamedTensors& tensors);

}  // namespace omnima::io
