#include "omnima/generate/change.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <string>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

using core::ConfigError;
using core::require;

// Where the engine reads: on the CPU already, nothing is copied.
at::Tensor here(const at::Tensor& numbers) {
  return numbers.detach().to(at::kCPU, at::kFloat).contiguous();
}

std::vector<float> copied(const at::Tensor& numbers) {
  const at::Tensor own = here(numbers);
  return {own.const_data_ptr<float>(), own.const_data_ptr<float>() + own.numel()};
}

Linear linear_of(const at::Tensor& numbers, const at::Tensor& bias = {}) {
  Linear made;
  made.weight = quant::matrix_of(here(numbers));
  made.outputs = made.weight.outputs;
  made.inputs = made.weight.inputs;
  if (bias.defined()) made.bias = {here(bias)};
  return made;
}

// A layer of the model, by which what an adapter says of it is measured.
struct Place {
  const std::string& name;
  std::int64_t outputs, inputs;
  at::Tensor rows;  // which of our rows each row of the file is; undefined: the same

  // What an adapter has for each output, as the file's rows lie.
  at::Tensor in_order(const at::Tensor& numbers) const {
    if (!rows.defined()) return numbers;
    fits(numbers.size(0) == outputs);
    return here(numbers).index_select(0, rows);
  }

  void fits(bool right) const {
    require<ConfigError>(right, "An adapter's parameters do not fit \"", name, "\" of ", outputs,
                         " outputs and ", inputs, " inputs: it is another model's.");
  }
};

void add_product(const ops::LowRank& product, const ops::LowRank::Part& part, const Place& place,
                 LinearChange& to) {
  const at::Tensor &down = product.down.compute, &up = part.up.compute;
  const at::Tensor &inner = part.inner.compute, &outer = part.outer.compute;
  place.fits(down.size(1) == place.inputs && part.first + part.rows <= place.outputs &&
             up.size(0) == part.rows && up.size(1) == part.rank &&
             part.begin + part.rank <= down.size(0) &&
             (!inner.defined() || inner.numel() == part.rank) &&
             (!outer.defined() || outer.numel() == part.rows));
  LinearChange::Product made{linear_of(down.narrow(0, part.begin, part.rank)),
                             linear_of(place.in_order(up)),
                             part.first,
                             {},
                             {}};
  made.inner.assign(static_cast<std::size_t>(part.rank), 1.0f);
  if (inner.defined()) made.inner = copied(inner);
  for (float& each : made.inner) each *= static_cast<float>(part.scale);
  if (outer.defined()) made.outer = copied(place.in_order(outer));
  to.products.push_back(std::move(made));
}

LinearChange change_of(const ops::Adapted& adapted, const Place& place) {
  LinearChange made;
  for (const auto& product : adapted.products) {
    for (const auto& part : product.parts) add_product(product, part, place, made);
  }
  const auto fits = [&](const auto& part, const at::Tensor& numbers) {
    place.fits(part.first + part.rows <= place.outputs && numbers.numel() == part.rows);
  };
  for (const auto& output : adapted.outputs) {
    fits(output, output.factor.compute);
    made.factors.resize(static_cast<std::size_t>(place.outputs), 1.0f);
    made.with_bias = output.with_bias;
    std::ranges::copy(copied(place.in_order(output.factor.compute)),
                      made.factors.begin() + output.first);
  }
  for (const auto& output : adapted.biases) {
    fits(output, output.bias.compute);
    made.biases.push_back({output.first, copied(place.in_order(output.bias.compute))});
  }
  if (!adapted.input.leaves.empty()) {
    place.fits(adapted.input.compute.numel() == place.inputs);
    made.inputs = copied(adapted.input.compute);
  }
  return made;
}

Bottleneck bottleneck_of(const ops::AdaptedModel::Behind& behind, const Place& place) {
  const std::int64_t width = behind.down_bias.numel();
  place.fits(behind.down.sizes() == at::IntArrayRef({width, place.outputs}) &&
             behind.up.sizes() == at::IntArrayRef({place.outputs, width}) &&
             behind.up_bias.numel() == place.outputs);
  return {linear_of(behind.down, behind.down_bias), linear_of(behind.up, behind.up_bias)};
}

VirtualTokens virtual_tokens_of(const ops::AdaptedModel& adapted, const Weights& weights) {
  VirtualTokens made;
  const auto take = [&](const at::Tensor& numbers, std::int64_t width) {
    require<ConfigError>(numbers.dim() == 2 && numbers.size(1) == width,
                         "An adapter's virtual tokens have ", numbers.size(-1),
                         " numbers, but here a token has ", width, ": it is another model's.");
    made.count = numbers.size(0);
    return here(numbers);
  };
  if (adapted.embeddings.defined()) {
    made.embeddings = take(adapted.embeddings, weights.embedding.inputs);
  }
  if (adapted.keys_values.empty()) return made;
  require<ConfigError>(adapted.keys_values.size() == weights.layers.size(),
                       "An adapter has keys and values of ", adapted.keys_values.size(),
                       " layers, but the model has ", weights.layers.size(),
                       ": it is another model's.");
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const Layer& layer = weights.layers[i];
    made.keys_values.push_back(take(adapted.keys_values[i], layer.k.outputs + layer.v.outputs));
  }
  return made;
}

// Only queries and keys lie in another order.
at::Tensor rows_in_file(const std::string& layer, std::int64_t outputs, const HeadOrder& order) {
  if (order.empty() || !(layer.ends_with(".q_proj") || layer.ends_with(".k_proj"))) return {};
  const auto width = std::ssize(order);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(outputs));
  for (std::int64_t head = 0; head < outputs; head += width) {
    for (std::int64_t i = 0; i < width; ++i) rows[head + order[i]] = head + i;
  }
  return at::tensor(rows, at::kLong);
}

}  // namespace

Change::Change(const Weights& weights, const ops::AdaptedModel& adapted)
    : virtual_tokens_(virtual_tokens_of(adapted, weights)) {
  at_.assign(weights.linears.size(), -1);
  // Calls f(what changes in a layer, the layer).
  const auto with_layer = [&](const std::string& name, const auto& f) {
    const auto found = weights.linears.find(name);
    require<ConfigError>(found != weights.linears.end(), "The model has no linear layer \"", name,
                         "\", which an adapter changes: it is another model's.");
    const auto& [number, outputs, inputs] = found->second;
    std::int64_t& at = at_[static_cast<std::size_t>(number)];
    if (at < 0) {
      at = std::ssize(all_);
      all_.emplace_back();
    }
    f(all_[static_cast<std::size_t>(at)],
      Place{name, outputs, inputs, rows_in_file(name, outputs, weights.head_order)});
  };
  for (const auto& [name, each] : adapted.linears) {
    with_layer(name,
               [&](LinearChange& change, const Place& place) { change = change_of(each, place); });
  }
  for (const auto& [name, each] : adapted.behind) {
    with_layer(name, [&](LinearChange& change, const Place& place) {
      change.behind = bottleneck_of(each, place);
    });
  }
}

}  // namespace omnima::generate
