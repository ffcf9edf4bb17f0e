// Round to nearest, each group clipped where its squared error is least.
#include "omnima/quant/methods/methods.h"

namespace omnima::quant {
namespace {

Levels quantize(const Format& format, const at::Tensor& weight, const TextMoments&) {
  return nearest_levels(format, weight, {});
}

}  // namespace

const Method kRtn{"rtn", false, false, quantize};

}  // namespace omnima::quant
