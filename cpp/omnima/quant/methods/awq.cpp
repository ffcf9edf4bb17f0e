// AWQ (Lin et al. 2023): the columns that are multiplied with large inputs are made larger before
// they are rounded, and what they are multiplied with smaller.
#include <ATen/TensorOperators.h>
#include <ATen/ops/sqrt.h>

#include "omnima/quant/methods/methods.h"

namespace omnima::quant {
namespace {

constexpr int kExponents = 20;  // shares of 1 that are tried (section 3.2, equation 5)

at::Tensor importance(const at::Tensor& moments) { return moments.diagonal().contiguous(); }

Levels quantize(const Format& format, const at::Tensor& weight, const TextMoments& text) {
  const bool read = text.moments.defined();
  return nearest_levels(format, weight, read ? importance(text.moments) : at::Tensor());
}

// s = a^alpha of the magnitudes a of the inputs, with the alpha of the least output error.
at::Tensor scales(const Format& format, const std::vector<at::Tensor>& weights,
                  const at::Tensor& moments) {
  const at::Tensor magnitude = moments.diagonal().sqrt().clamp_min(1e-4);
  at::Tensor best;
  double least = 0;
  for (int i = 0; i < kExponents; ++i) {
    at::Tensor s = magnitude.pow(static_cast<double>(i) / kExponents);
    s = s.div(s.max().mul(s.min()).sqrt()).contiguous();
    const at::Tensor counts = importance(moments).div(s.square()).contiguous();
    double error = 0;
    for (const at::Tensor& weight : weights) {
      const at::Tensor scaled = weight.mul(s);
      const Levels rounded = nearest_levels(format, scaled, counts, Search::kQuick);
      error += output_error(scaled.sub(rounded.numbers()).div(s), moments);
    }
    if (i > 0 && error >= least) continue;
    least = error;
    best = i == 0 ? at::Tensor() : s;  // 0: all factors are 1
  }
  return best;
}

}  // namespace

const Method kAwq{"awq", true, false, quantize, scales};

}  // namespace omnima::quant
