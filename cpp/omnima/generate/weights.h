// A decoder's parameters by role. They stay where they are: training may change them between calls,
// or they lie in a file as it stores them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "omnima/models/decoder_config.h"
#include "omnima/quant/matrix.h"
#include "omnima/quant/packed.h"

namespace omnima::generate {

struct Weight {
  at::Tensor tensor;  // undefined where the configuration has none
  const float* data() const { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }
  // What is read when all of it is.
  std::size_t bytes() const { return tensor.defined() ? tensor.nbytes() : 0; }
};

struct Linear {
  quant::Matrix weight;                               // [outputs, inputs]
  std::shared_ptr<const quant::PackedMatrix> packed;  // the same for activations in 8 bits, or null
  bool in_halves = false;                             // it meets activations in bfloat16
  Weight bias;                                        // [outputs]
  std::int64_t outputs = 0;
  std::int64_t inputs = 0;
  std::int64_t place = -1;  // among those that adapters can change; -1: none of them
  std::int64_t half = -1;   // among Weights::halves; -1: none of them
};

struct Norm {
  Weight weight, bias;  // [hidden]
};

struct Mlp {
  Linear gate, up, down;  // gate: where the activation has one
};

struct Layer {
  // Before attention and mlp, and after them: without a weight there is none.
  Norm input_norm, mlp_norm, attention_output_norm, mlp_output_norm;
  Weight query_norm, key_norm;  // [head_dim], or as wide as all heads
  Linear q, k, v, o;
  Mlp mlp;                   // with experts the one that all tokens pass: without outputs, none
  Linear router;             // [experts, hidden]
  std::vector<Mlp> experts;  // none: a plain mlp
};

using Parameters = std::map<std::string, at::Tensor>;
// The formats of parameters that are bytes of blocks (quant/format.h), by the parameters' names.
using Formats = std::map<std::string, std::string>;
// Where in a file each number of a head lies (rotary pairs may be neighbours there).
using HeadOrder = std::vector<std::int64_t>;

// What matrices are multiplied with. kFloat32: the numbers as they are. kBf16: rounded to bfloat16,
// where the matrix is stored so. kInt8: each piece of 32 as signed bytes with a scale, where it is
// stored in a few bits. Both are faster and another result.
enum class Activations { kFloat32, kBf16, kInt8 };
// "float32", "bf16" or "int8"; else a ConfigError.
Activations activations_named(const std::string& name);

struct Weights {
  // From parameters with their canonical names (models/decoder_config.h): float32, float16 or
  // bfloat16 of their shape, or bytes of a format; contiguous, in the CPU's memory or, but for the
  // bytes, on `device`, where they stay. Throws ConfigError where one is missing or is something
  // else, and where `activations` meet no matrix. With kInt8 matrices of the formats that
  // quant::packed takes are laid out anew and follow their parameters no more. In the projections
  // to queries and keys our number i of a head is row head_order[i] of that head's; empty: row i.
  Weights(const models::DecoderConfig& config, const Parameters& parameters,
          const Formats& formats = {}, Activations activations = Activations::kFloat32,
          HeadOrder head_order = {}, const at::Device& device = at::kCPU);

  quant::Matrix embedding, positions;  // positions: without outputs, none
  Weight relative_bias;
  std::vector<Layer> layers;
  Norm norm;
  Linear head;
  HeadOrder head_order;
  // Matrices of bfloat16 on the CPU that meet float32, in the order in which a token reads them.
  std::vector<quant::Matrix> halves;
  struct Named {
    std::int64_t place, outputs, inputs;
  };
  std::map<std::string, Named> linears;  // those that adapters can change, by their names
};

}  // namespace omnima::generate
