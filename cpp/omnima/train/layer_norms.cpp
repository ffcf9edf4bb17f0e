#include "omnima/train/layer_norms.h"

#include <ATen/Parallel.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/adamw.h"
#include "omnima/ops/weight.h"

namespace omnima::train {
namespace {

constexpr std::int64_t kBlock = 1 << 16;

// Sums of squares of one flat buffer, one for each parameter.
std::vector<double> squares(const at::Tensor& flat, const std::vector<nn::Parameter>& parameters) {
  std::vector<double> sums(parameters.size());
  if (!flat.is_cpu() || ops::reference_mode()) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor part = flat.narrow(0, parameters[i].offset, parameters[i].size());
      sums[i] = std::pow(at::linalg_vector_norm(part).item<double>(), 2);
    }
    return sums;
  }
  struct Block {
    std::size_t parameter;
    std::int64_t first, count;
  };
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::int64_t size = parameters[i].size();
    for (std::int64_t at = 0; at < size; at += kBlock) {
      blocks.push_back({i, parameters[i].offset + at, std::min(kBlock, size - at)});
    }
  }
  // Blocks are added in order, so the sums do not depend on the threads.
  std::vector<double> parts(blocks.size());
  const float* values = flat.const_data_ptr<float>();
  at::parallel_for(0, static_cast<std::int64_t>(blocks.size()), 1,
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t i = begin; i < end; ++i) {
                       parts[i] = kernels::optimizer_kernels().sum_of_squares(
                           values + blocks[i].first, blocks[i].count);
                     }
                   });
  for (std::size_t i = 0; i < blocks.size(); ++i) sums[blocks[i].parameter] += parts[i];
  return sums;
}

}  // namespace

std::string layer_of(const std::string& parameter) {
  const std::string root = "model.";
  const std::size_t begin = parameter.rfind(root, 0) == 0 ? root.size() : 0;
  const std::size_t first_dot = parameter.find('.', begin);
  const std::string module = parameter.substr(begin, first_dot - begin);
  if (module != "layers" || first_dot == std::string::npos) return module;
  return parameter.substr(begin, parameter.find('.', first_dot + 1) - begin);
}

LayerNorms::LayerNorms(std::shared_ptr<models::Decoder> model)
    : model_(std::move(model)), adapter_(model_->adapters().learning()) {
  for (const auto& parameter : arena().parameters()) {
    const std::string layer = layer_of(parameter.name);
    const auto found = std::find(layers_.begin(), layers_.end(), layer);
    layer_of_parameter_.push_back(found - layers_.begin());
    if (found == layers_.end()) layers_.push_back(layer);
  }
}

void LayerNorms::before() {
  const core::Scope scope("norms.before");
  const at::Tensor& weights = arena().weights();
  kept_ = weights.detach().clone();
}

std::vector<LayerNorm> LayerNorms::after() {
  core::require<core::Error>(kept_.defined(),
                             "LayerNorms.after() measures the step since before(), which was not "
                             "called: call before(), then the step, then after().");
  const core::Scope scope("norms.after");
  nn::Arena& arena = this->arena();
  const auto& parameters = arena.parameters();
  const auto weight = squares(arena.weights(), parameters);
  const auto gradient = squares(arena.gradients(), parameters);
  kept_.sub_(arena.weights().detach());
  const auto update = squares(kept_, parameters);
  kept_ = at::Tensor();
  std::vector<LayerNorm> norms;
  for (const auto& layer : layers_) norms.push_back({layer});
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    LayerNorm& norm = norms[layer_of_parameter_[i]];
    norm.gradient += gradient[i];
    norm.weight += weight[i];
    norm.update += update[i];
  }
  for (auto& norm : norms) {
    norm.gradient = std::sqrt(norm.gradient);
    norm.weight = std::sqrt(norm.weight);
    norm.update = std::sqrt(norm.update);
  }
  return norms;
}

}  // namespace omnima::train
