#include "omnima/nn/held_blocks.h"

#include <algorithm>
#include <string>

#include "omnima/core/error.h"

namespace omnima::nn {

HeldBlocks::HeldBlocks(std::vector<quant::Matrix> parts) : parts_(std::move(parts)) {
  for (const auto& part : parts_) {
    core::require(part.inputs == parts_.front().inputs, "Matrices of ", part.inputs, " and ",
                  parts_.front().inputs, " inputs are not one.");
    rows_ += part.outputs;
  }
}

void HeldBlocks::write(std::int64_t first, const at::Tensor& out) const {
  const std::int64_t end = first + out.size(0);
  core::require<core::DataError>(first >= 0 && end <= rows_ && out.size(1) == columns(), "Rows ",
                                 first, " to ", end, " of a matrix [", rows_, ", ", columns(),
                                 "] are asked for as ", out.sizes(), ".");
  std::int64_t begin = 0;  // of a part
  for (const auto& part : parts_) {
    const std::int64_t from = std::max(first, begin), to = std::min(end, begin + part.outputs);
    if (from < to) {
      const at::Tensor rows = out.narrow(0, from - first, to - from);
      if (out.scalar_type() == at::kBFloat16) {
        quant::dequantize_rows(part, from - begin, to - from,
                               static_cast<kernels::bfloat16*>(rows.data_ptr()));
      } else {
        quant::dequantize_rows(part, from - begin, to - from, rows.data_ptr<float>());
      }
    }
    begin += part.outputs;
  }
}

at::Tensor HeldBlocks::as_they_lie(at::ScalarType type) const {
  const quant::Matrix& only = parts_.front();
  const char* name = type == at::kBFloat16 ? "bf16" : type == at::kFloat ? "f32" : "f16";
  if (parts_.size() > 1 || only.format->name != name) return {};
  return only.blocks.view(type);
}

}  // namespace omnima::nn
