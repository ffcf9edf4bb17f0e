// Number formats and quantization methods for Python.
#include <pybind11/stl.h>

#include "omnima/bindings/bindings.h"
#include "omnima/core/error.h"
#include "omnima/quant/convert.h"
#include "omnima/quant/methods/method.h"

namespace omnima::bindings {
namespace {

using core::ConfigError;
using core::DataError;
using core::require;

at::Tensor dequantized(const std::string& name, const at::Tensor& blocks,
                       const std::vector<std::int64_t>& shape) {
  const quant::Format& format = quant::format_named(name);
  std::int64_t numbers = 1;
  for (const std::int64_t each : shape) numbers *= each;
  require<DataError>(blocks.is_contiguous() && blocks.scalar_type() == at::kByte &&
                         blocks.numel() * format.numbers == numbers * format.bytes,
                     "A tensor of ", numbers, " numbers in ", name, " is given as ", blocks.numel(),
                     " bytes.");
  return quant::dequantized(format, blocks.const_data_ptr(), shape);
}

std::int64_t row_bytes(const std::string& name, std::int64_t inputs) {
  const quant::Format& format = quant::format_named(name);
  require<ConfigError>(inputs % format.numbers == 0, "Rows of ", inputs,
                       " numbers do not lie in blocks of ", name, ", which hold ", format.numbers,
                       ".");
  return format.row_bytes(inputs);
}

at::Tensor quantize_matrix(const std::string& method, const std::string& format,
                           const at::Tensor& weight, const std::optional<at::Tensor>& moments) {
  require<DataError>(weight.dim() == 2 && weight.scalar_type() == at::kFloat && weight.is_cpu(),
                     "A matrix to be quantized is float32 [outputs, inputs] on the CPU.");
  require<DataError>(!moments || (moments->dim() == 2 && moments->scalar_type() == at::kFloat &&
                                  moments->is_cpu() && moments->size(0) == weight.size(1) &&
                                  moments->size(1) == weight.size(1)),
                     "Second moments of ", weight.size(1), " inputs are float32 [inputs, inputs].");
  const at::Tensor given = moments ? moments->detach().contiguous() : at::Tensor();
  return quant::method_named(method)
      .quantize(quant::format_named(format), weight.detach().contiguous(), given)
      .blocks();
}

}  // namespace

void bind_quant(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  module.def(
      "formats",
      [] {
        std::vector<std::string> names;
        for (const auto* each : quant::formats()) names.push_back(each->name);
        return names;
      },
      "Names of the number formats; our families have members of other sizes, too.");
  module.def("row_bytes", &row_bytes, py::arg("format"), py::arg("inputs"),
             "Bytes of a row of so many numbers.");
  module.def("dequantized", &dequantized, py::arg("format"), py::arg("blocks"), py::arg("shape"),
             unlocked, "float32 numbers from the bytes of their blocks.");
  module.def(
      "quantized",
      [](const std::string& format, const at::Tensor& numbers) {
        return quant::quantized(quant::format_named(format), numbers);
      },
      py::arg("format"), py::arg("numbers"), unlocked,
      "The bytes of the blocks that hold float32 numbers.");
  module.def("quantize_matrix", &quantize_matrix, py::arg("method"), py::arg("format"),
             py::arg("weight"), py::arg("moments") = py::none(), unlocked,
             "A matrix float32 [outputs, inputs] as blocks that a method chooses, uint8 [outputs, "
             "bytes of a row]. moments [inputs, inputs]: the mean of x x^T of what it is "
             "multiplied with.");
}

}  // namespace omnima::bindings
