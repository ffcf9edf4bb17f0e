#include "omnima/generate/cuda/device_weights.h"

#include <ATen/Parallel.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "omnima/quant/formats/bits.h"

namespace omnima::generate::cuda {
namespace {

using kernels::BlockLayout;
using kernels::cuda::DecodeMatrix;
using kernels::cuda::kPieceBytes;
using kernels::cuda::Numbers;

// How blocks become pieces: bits of a level, and the bytes of a block before its levels.
struct Blocks {
  int bits = 0;  // 0: they become float32
  bool has_least = false;
  std::int64_t head() const { return has_least ? 4 : 2; }
};

Blocks blocks_of(const quant::Matrix& matrix) {
  const std::int64_t group = matrix.format->numbers;
  const bool pieces = group % 32 == 0;
  switch (matrix.format->layout) {
    case BlockLayout::kQ8_0:
    case BlockLayout::kInt8:
      return {pieces || group == matrix.inputs ? 8 : 0, false};
    case BlockLayout::kQ4_0:
    case BlockLayout::kInt4:
      return {4, false};
    case BlockLayout::kQ4_1:
    case BlockLayout::kInt4Z:
      return {4, true};
    default:
      return {};
  }
}

// 32 numbers as they lie in a block of half bytes, to 16 bytes in which they follow each other.
void put_half_bytes(const std::uint8_t* from, std::uint8_t* to) {
  const quant::HalfBytes levels(from);
  for (int i = 0; i < 16; ++i) {
    to[i] = static_cast<std::uint8_t>(levels.at[2 * i] | levels.at[2 * i + 1] << 4);
  }
}

DeviceMatrix in_pieces(const quant::Matrix& matrix, const Blocks& blocks, const at::Device& device,
                       const std::vector<std::int64_t>& order) {
  const std::int64_t group = matrix.format->numbers, groups = matrix.inputs / group;
  const std::int64_t row_bytes =
      (matrix.inputs * blocks.bits / 8 + kPieceBytes - 1) / kPieceBytes * kPieceBytes;
  const at::Tensor numbers = at::zeros({matrix.outputs, row_bytes}, at::kByte);
  const at::Tensor scales = at::zeros({matrix.outputs, groups}, at::kShort);
  const at::Tensor leasts =
      blocks.has_least ? at::zeros({matrix.outputs, groups}, at::kShort) : at::Tensor();
  auto* levels = numbers.mutable_data_ptr<std::uint8_t>();
  auto* scale = scales.mutable_data_ptr<std::int16_t>();
  auto* least = blocks.has_least ? leasts.mutable_data_ptr<std::int16_t>() : nullptr;
  at::parallel_for(0, matrix.outputs, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::uint8_t* block = matrix.row(order.empty() ? row : order[row]);
      std::uint8_t* to = levels + row * row_bytes;
      for (std::int64_t i = 0; i < groups; ++i, block += matrix.format->bytes) {
        scale[row * groups + i] = static_cast<std::int16_t>(quant::load_u16(block));
        if (least) least[row * groups + i] = static_cast<std::int16_t>(quant::load_u16(block + 2));
        const std::uint8_t* from = block + blocks.head();
        if (blocks.bits == 8) {
          for (std::int64_t j = 0; j < group; ++j) *to++ = from[j] ^ 0x80;
        } else {
          for (std::int64_t j = 0; j < group; j += 32, from += 16, to += 16)
            put_half_bytes(from, to);
        }
      }
    }
  });
  DeviceMatrix out{{},
                   numbers.to(device),
                   scales.to(device),
                   blocks.has_least ? leasts.to(device) : at::Tensor()};
  out.matrix.scales = static_cast<const std::uint16_t*>(out.scales.const_data_ptr());
  if (least) out.matrix.leasts = static_cast<const std::uint16_t*>(out.leasts.const_data_ptr());
  out.matrix.group = group;
  out.matrix.row_bytes = row_bytes;
  out.matrix.kind = blocks.bits == 8 ? Numbers::kInt8 : Numbers::kInt4;
  return out;
}

// `rows` [outputs, bytes of a row].
DeviceMatrix in_floats(const at::Tensor& rows, Numbers kind, const at::Device& device,
                       const std::vector<std::int64_t>& order) {
  const at::Tensor ordered =
      order.empty() ? rows
                    : at::index_select(rows, 0, at::tensor(order, at::kLong).to(rows.device()));
  DeviceMatrix out{{}, ordered.to(device), {}, {}};
  out.matrix.kind = kind;
  out.matrix.row_bytes = rows.size(1);
  return out;
}

// Rows of all heads when those of each are `head_order`'s.
std::vector<std::int64_t> rows_of(const HeadOrder& head_order, std::int64_t outputs) {
  std::vector<std::int64_t> rows;
  const auto width = static_cast<std::int64_t>(head_order.size());
  for (std::int64_t i = 0; width > 0 && i < outputs; ++i) {
    rows.push_back(i / width * width + head_order[i % width]);
  }
  return rows;
}

class Mover {
 public:
  explicit Mover(const at::Device& device) : device_(device) {}

  at::Tensor operator()(const Weight& weight) const {
    return weight.tensor.defined() ? weight.tensor.to(device_) : at::Tensor();
  }
  DeviceNorm operator()(const Norm& norm) const {
    return {(*this)(norm.weight), (*this)(norm.bias)};
  }
  DeviceLinear operator()(const Linear& linear, const HeadOrder& head_order = {}) const {
    if (linear.outputs == 0) return {};
    const auto order = rows_of(head_order, linear.outputs);
    at::Tensor bias = (*this)(linear.bias);
    if (bias.defined() && !order.empty()) {
      bias = at::index_select(bias, 0, at::tensor(order, at::kLong).to(device_));
    }
    return {device_matrix(linear.weight, device_, order), bias};
  }
  DeviceMatrix operator()(const quant::Matrix& matrix) const {
    return matrix.outputs == 0 ? DeviceMatrix{} : device_matrix(matrix, device_);
  }

 private:
  at::Device device_;
};

}  // namespace

DeviceMatrix device_matrix(const quant::Matrix& matrix, const at::Device& device,
                           const std::vector<std::int64_t>& order) {
  const Blocks blocks = blocks_of(matrix);
  DeviceMatrix out;
  switch (matrix.format->layout) {
    case BlockLayout::kF32:
      out = in_floats(matrix.blocks, Numbers::kFloat32, device, order);
      break;
    case BlockLayout::kF16:
      out = in_floats(matrix.blocks, Numbers::kFloat16, device, order);
      break;
    case BlockLayout::kBf16:
      out = in_floats(matrix.blocks, Numbers::kBfloat16, device, order);
      break;
    default:
      out = blocks.bits > 0
                ? in_pieces(matrix, blocks, device, order)
                : in_floats(quant::dequantized_rows(matrix, 0, matrix.outputs).view(at::kByte),
                            Numbers::kFloat32, device, order);
  }
  out.matrix.numbers = out.numbers.const_data_ptr();
  out.matrix.outputs = matrix.outputs;
  out.matrix.inputs = matrix.inputs;
  return out;
}

DeviceWeights::DeviceWeights(const models::DecoderConfig& config, const Weights& weights,
                             const at::Device& to)
    : device(to) {
  const Mover move(device);
  embedding = move(weights.embedding);
  positions = move(weights.positions);
  relative_bias = move(weights.relative_bias);
  for (const Layer& layer : weights.layers) {
    layers.push_back(
        {move(layer.input_norm), move(layer.mlp_norm), move(layer.attention_output_norm),
         move(layer.mlp_output_norm), move(layer.query_norm), move(layer.key_norm),
         move(layer.q, weights.head_order), move(layer.k, weights.head_order), move(layer.v),
         move(layer.o), move(layer.mlp.gate), move(layer.mlp.up), move(layer.mlp.down)});
  }
  norm = move(weights.norm);
  head = config.tie_word_embeddings ? DeviceLinear{embedding, {}} : move(weights.head);
}

}  // namespace omnima::generate::cuda
