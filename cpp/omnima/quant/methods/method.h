// A quantization method: it chooses the levels of one matrix. A new one is a file here and a line
// in registry.cpp.
#pragma once

#include <utility>
#include <vector>

#include "omnima/quant/methods/levels.h"

namespace omnima::quant {

// What a matrix is multiplied with when the model reads the calibration text, float32 [inputs,
// inputs] each; undefined where no row of it came by.
struct TextMoments {
  at::Tensor moments;  // the mean of x x^T
  // The mean of (x' - x) x^T, where x' is what the matrix was multiplied with before anything was
  // quantized; undefined: the same.
  at::Tensor drift;

  TextMoments() = default;
  TextMoments(at::Tensor of_inputs, at::Tensor of_drift = {})  // NOLINT: converts
      : moments(std::move(of_inputs)), drift(std::move(of_drift)) {}
};

struct Method {
  const char* name;
  bool reads_text;     // whether it needs the second moments of what the matrix is multiplied with
  bool follows_drift;  // whether it makes up for what the matrices before got wrong
  // weight float32 [rows, inputs], contiguous.
  Levels (*quantize)(const Format& format, const at::Tensor& weight, const TextMoments& text);
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
