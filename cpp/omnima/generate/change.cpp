#include "omnima/generate/change.h"

#include <algorithm>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

using core::ConfigError;
using core::require;

Linear linear_of(const at::Tensor& numbers) {
  Linear made;
  made.weight = quant::matrix_of(numbers.contiguous());
  made.outputs = made.weight.outputs;
  made.inputs = made.weight.inputs;
  return made;
}

LinearChange change_of(const ops::Adapted& adapted, const std::string& name, std::int64_t outputs,
                       std::int64_t inputs) {
  const auto fits = [&](bool right) {
    require<ConfigError>(right, "An adapter's parameters do not fit \"", name, "\" of ", outputs,
                         " outputs and ", inputs, " inputs: it is another model's.");
  };
  LinearChange made;
  for (const auto& product : adapted.products) {
    for (const auto& part : product.parts) {
      const at::Tensor& down = product.down.compute;
      const at::Tensor& up = part.up.compute;
      fits(down.size(1) == inputs && part.first + part.rows <= outputs && up.size(0) == part.rows &&
           up.size(1) == part.rank && part.begin + part.rank <= down.size(0));
      made.products.push_back({linear_of(down.narrow(0, part.begin, part.rank)), linear_of(up),
                               part.first, static_cast<float>(part.scale)});
    }
  }
  for (const auto& output : adapted.outputs) {
    fits(output.first + output.rows <= outputs && output.factor.compute.numel() == output.rows);
    made.factors.resize(static_cast<std::size_t>(outputs), 1.0f);
    made.with_bias = output.with_bias;
    std::copy_n(output.factor.compute.const_data_ptr<float>(), output.rows,
                made.factors.begin() + output.first);
  }
  if (!adapted.input.leaves.empty()) {
    const float* from = adapted.input.compute.const_data_ptr<float>();
    fits(adapted.input.compute.numel() == inputs);
    made.inputs.assign(from, from + inputs);
  }
  return made;
}

}  // namespace

Change::Change(const Weights& weights, const AdaptedLinears& adapted) {
  require<ConfigError>(weights.head_order.empty(),
                       "Adapters cannot be chosen for a model whose file orders heads otherwise.");
  at_.assign(weights.linears.size(), -1);
  for (const auto& [name, each] : adapted) {
    const auto found = weights.linears.find(name);
    require<ConfigError>(found != weights.linears.end(), "The model has no linear layer \"", name,
                         "\", which an adapter changes: it is another model's.");
    const auto& [place, outputs, inputs] = found->second;
    at_[static_cast<std::size_t>(place)] = std::ssize(all_);
    all_.push_back(change_of(each, name, outputs, inputs));
  }
}

}  // namespace omnima::generate
