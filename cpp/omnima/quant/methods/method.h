// A quantization method: it chooses the levels of one matrix. A new one is a file here and a line
// in registry.cpp.
#pragma once

#include <vector>

#include "omnima/quant/methods/levels.h"

namespace omnima::quant {

struct Method {
  const char* name;
  bool reads_text;  // whether it needs the second moments of what the matrix is multiplied with
  // weight float32 [rows, inputs], contiguous; moments float32 [inputs, inputs]: the mean of x x^T
  // over the calibration text, or undefined where no row of it came by.
  Levels (*quantize)(const Format& format, const at::Tensor& weight, const at::Tensor& moments);
  // Factors [inputs] that the weights' columns are to be multiplied by, and what they are
  // multiplied with divided by, before anything is quantized; undefined: leave them. Null: the
  // method has none. All of these matrices read the same inputs.
  at::Tensor (*scales)(const Format& format, const std::vector<at::Tensor>& weights,
                       const at::Tensor& moments) = nullptr;
};

const std::vector<const Method*>& methods();
const Method& method_named(const std::string& name);  // throws ConfigError for an unknown one

// What the error of a matrix does to its outputs: the mean over the text of |(W - Q) x|^2.
double output_error(const at::Tensor& error, const at::Tensor& moments);

}  // namespace omnima::quant
