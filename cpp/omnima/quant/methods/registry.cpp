#include "omnima/core/error.h"
#include "omnima/ops/product.h"
#include "omnima/quant/methods/methods.h"

namespace omnima::quant {

const std::vector<const Method*>& methods() {
  static const std::vector<const Method*> all{&kRtn, &kGptq, &kAwq};
  return all;
}

const Method& method_named(const std::string& name) {
  std::string known;
  for (const Method* each : methods()) {
    if (name == each->name) return *each;
    known += (known.empty() ? "" : ", ") + std::string(each->name);
  }
  throw core::ConfigError(
      core::message("There is no quantization method \"", name, "\"; there are ", known, "."));
}

double output_error(const at::Tensor& error, const at::Tensor& moments) {
  return ops::product(error, moments).mul_(error).sum(at::kDouble).item<double>();
}

}  // namespace omnima::quant
