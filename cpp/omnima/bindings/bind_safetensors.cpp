// Safetensors files for Python: read, metadata, write, and the search for NaN and infinity.
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "omnima/bindings/bindings.h"
#include "omnima/core/scratch_file.h"
#include "omnima/io/mapping.h"
#include "omnima/io/safetensors.h"

namespace omnima::bindings {
namespace {

using Path = std::filesystem::path;

io::NamedTensors named_tensors(const std::map<std::string, at::Tensor>& tensors) {
  return {tensors.begin(), tensors.end()};
}

std::map<std::string, at::Tensor> read(const Path& path, bool ahead) {
  auto file = io::read_safetensors(path, ahead);
  return {file.tensors.begin(), file.tensors.end()};
}

void write(const Path& path, const std::map<std::string, at::Tensor>& tensors,
           const std::map<std::string, std::string>& metadata) {
  io::write_safetensors(path, named_tensors(tensors), metadata);
}

}  // namespace

void bind_safetensors(py::module_& module) {
  using Release = py::call_guard<py::gil_scoped_release>;
  module.def("read_safetensors", &read, py::arg("path"), py::arg("ahead") = false, Release(),
             "Tensors of a safetensors file by name. They share a copy-on-write mapping of the "
             "file, which with `ahead` is on its way into memory at once. A malformed file raises "
             "DataError before anything is allocated.");
  module.def(
      "read_safetensors_metadata",
      [](const Path& path) { return io::read_safetensors(path).metadata; }, py::arg("path"),
      Release(), "The metadata of a safetensors file: text by text.");
  module.def("write_safetensors", &write, py::arg("path"), py::arg("tensors"),
             py::arg("metadata") = std::map<std::string, std::string>{}, Release(),
             "Writes tensors aside, flushes them to the disk and renames the file into place; on "
             "an error a file that was there before is unchanged.");
  module.def(
      "page_out",
      [](const at::Tensor& tensor) {
        if (tensor.is_cpu()) core::page_out(tensor.const_data_ptr(), tensor.nbytes());
      },
      py::arg("tensor"), Release(),
      "Says that a tensor of a file has been used: its memory may go, its values stay.");
  module.def(
      "forget",
      [](const at::Tensor& tensor) {
        io::Mapping::forget(tensor.const_data_ptr(), tensor.nbytes());
      },
      py::arg("tensor"), Release(),
      "Says that a tensor in a file's mapping has been used: its memory leaves the process, and "
      "what was written into it is lost. Other tensors are left alone.");
  module.def(
      "nonfinite_tensors",
      [](const std::map<std::string, at::Tensor>& tensors) {
        return io::nonfinite_names(named_tensors(tensors));
      },
      py::arg("tensors"), Release(), "Names of the tensors that hold a NaN or an infinity.");
}

}  // namespace omnima::bindings
