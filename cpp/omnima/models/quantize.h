// Quantizes the matrices of a decoder, block by block: each sees the calibration text as the blocks
// before it, already quantized, pass it on.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "omnima/models/decoder.h"

namespace omnima::models {

struct QuantizeOptions {
  std::string method;                          // one of quant::methods()
  std::map<std::string, std::string> formats;  // of parameters by name; all others stay
};

struct QuantizedParameter {
  std::string name, format;
  at::Tensor blocks;  // uint8 [outputs, bytes of a row]
};

// ids int64 [rows, time]: the calibration text, undefined for a method that reads none. Afterwards
// the parameters hold the numbers that their blocks say. `progress` is called with the blocks that
// are done and how many there are; what it throws ends the call.
// Throws ConfigError for a method, format or parameter that is not there, or a format whose blocks
// are no part of the parameter's rows; DataError where parameters hold NaN or infinity. Nothing has
// changed then.
std::vector<QuantizedParameter> quantize(
    Decoder& model, const at::Tensor& ids, const QuantizeOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress);

}  // namespace omnima::models
