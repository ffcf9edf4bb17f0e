// A decoder's parameters as the decode step's kernels read them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "omnima/generate/weights.h"
#include "omnima/kernels/cuda/decode_matrix.h"
#include "omnima/models/decoder_config.h"
#include "omnima/quant/matrix.h"

namespace omnima::generate::cuda {

struct DeviceMatrix {
  kernels::cuda::DecodeMatrix matrix;
  at::Tensor numbers, scales, leasts;  // what it points to
};

// On the device, row order[i] as row i (empty: as they are). Floats that lie there already stay
// where they are. Levels of 8 and 4 bits that share scales keep them; other blocks become float32.
DeviceMatrix device_matrix(const quant::Matrix& matrix, const at::Device& device,
                           const std::vector<std::int64_t>& order = {});

struct DeviceLinear {
  DeviceMatrix weight;
  at::Tensor bias;  // [outputs], or undefined
  std::int64_t outputs() const { return weight.matrix.outputs; }
};

struct DeviceNorm {
  at::Tensor weight, bias;  // [hidden], or undefined
};

struct DeviceLayer {
  DeviceNorm input_norm, mlp_norm, attention_output_norm, mlp_output_norm;
  at::Tensor query_norm, key_norm;
  DeviceLinear q, k, v, o, gate, up, down;
};

struct DeviceWeights {
  DeviceWeights(const models::DecoderConfig& config, const Weights& weights,
                const at::Device& device);

  at::Device device;
  DeviceMatrix embedding, positions;
  at::Tensor relative_bias;
  std::vector<DeviceLayer> layers;
  DeviceNorm norm;
  DeviceLinear head;
};

}  // namespace omnima::generate::cuda
