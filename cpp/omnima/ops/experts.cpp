#include "omnima/ops/experts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "omnima/kernels/cpu/expert_rows.h"
#include "omnima/ops/activation_rows.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/linear.h"
#include "omnima/ops/linear_rows.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Who goes where. A pair is a row and one of its choices: row * chosen + choice.
struct Places {
  int64_t chosen = 0;
  std::vector<int64_t> starts;  // [experts + 1]: each expert's places lie together
  std::vector<int64_t> pairs;   // of each place
  std::vector<int64_t> places;  // of each pair; -1: it did not fit

  int64_t count(int64_t expert) const { return starts[expert + 1] - starts[expert]; }
  int64_t row(int64_t place) const { return pairs[place] / chosen; }
};

Places places_of(const at::Tensor& which, int64_t experts, int64_t capacity) {
  const int64_t rows = which.size(0), chosen = which.size(1);
  const auto* to = which.const_data_ptr<int64_t>();
  std::vector<int64_t> coming(experts);
  Places made{chosen, std::vector<int64_t>(experts + 1), {}, std::vector<int64_t>(rows * chosen)};
  for (int64_t choice = 0; choice < chosen; ++choice) {
    for (int64_t pair = choice; pair < rows * chosen; pair += chosen) {
      auto& taken = coming[to[pair]];
      made.places[pair] = capacity > 0 && taken == capacity ? -1 : taken++;
    }
  }
  std::partial_sum(coming.begin(), coming.end(), made.starts.begin() + 1);
  made.pairs.resize(made.starts.back());
  for (int64_t pair = 0; pair < rows * chosen; ++pair) {
    if (made.places[pair] < 0) continue;
    made.places[pair] += made.starts[to[pair]];
    made.pairs[made.places[pair]] = pair;
  }
  return made;
}

struct Layer {
  Places places;
  std::vector<LinearRows> inputs, outputs;
  Activation activation;

  // The rows of x that an expert takes, in the order of its places.
  at::Tensor gathered(const at::Tensor& x, int64_t expert) const {
    const int64_t count = places.count(expert), first = places.starts[expert];
    const at::Tensor taken = at::empty({count, x.size(1)}, x.options());
    const int64_t bytes = x.size(1) * x.element_size();
    const auto* from = static_cast<const char*>(x.const_data_ptr());
    auto* to = static_cast<char*>(taken.mutable_data_ptr());
    at::parallel_for(0, count, row_grain(x.size(1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(from + places.row(first + i) * bytes, bytes, to + i * bytes);
      }
    });
    return taken;
  }

  // h [places of the expert, inner], each row times its weight.
  void scale(const at::Tensor& h, const at::Tensor& weights, int64_t expert) const {
    by_dtype(h, "experts", [&]<class T>(T*) {
      const int64_t cols = h.size(1);
      const int64_t* pair = places.pairs.data() + places.starts[expert];
      at::parallel_for(0, h.size(0), row_grain(cols), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          T* row = data<T>(h) + i * cols;
          kernels::expert_row_kernels<T>().scale(row, data<float>(weights)[pair[i]], row, cols);
        }
      });
    });
  }

  // The products of the rows of a and b, to where the weights of an expert's places are.
  void dots(const at::Tensor& a, const at::Tensor& b, const at::Tensor& dweights,
            int64_t expert) const {
    by_dtype(a, "experts", [&]<class T>(T*) {
      const int64_t cols = a.size(1);
      const int64_t* pair = places.pairs.data() + places.starts[expert];
      at::parallel_for(0, a.size(0), row_grain(cols), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          data<float>(dweights)[pair[i]] = kernels::expert_row_kernels<T>().dot(
              data<T>(a) + i * cols, data<T>(b) + i * cols, cols);
        }
      });
    });
  }

  // Each row's sum over its places; made: one tensor an expert.
  at::Tensor summed(const std::vector<at::Tensor>& made, const at::Tensor& like) const {
    const at::Tensor y = at::empty_like(like);
    by_dtype(y, "experts", [&]<class T>(T*) {
      const int64_t cols = y.size(1);
      std::vector<const T*> lies(places.pairs.size());  // where each place's row is
      for (std::size_t e = 0; e < made.size(); ++e) {
        for (int64_t i = 0; i < places.count(e); ++i) {
          lies[places.starts[e] + i] = data<T>(made[e]) + i * cols;
        }
      }
      at::parallel_for(0, y.size(0), row_grain(cols), [&](int64_t begin, int64_t end) {
        std::vector<const T*> rows(places.chosen);
        for (int64_t row = begin; row < end; ++row) {
          int64_t found = 0;
          for (int64_t pair = row * places.chosen; pair < (row + 1) * places.chosen; ++pair) {
            if (places.places[pair] >= 0) rows[found++] = lies[places.places[pair]];
          }
          kernels::expert_row_kernels<T>().sum(rows.data(), found, data<T>(y) + row * cols, cols);
        }
      });
    });
    return y;
  }
};

// Each expert multiplies its rows at once. Kept for backward is what the activation reads; weights
// are multiplied in before the second product, so that their gradient needs no output of it.
struct ExpertsFunction : torch::autograd::Function<ExpertsFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weights, at::TensorList,
                            const std::shared_ptr<const Layer>& layer) {
    std::vector<at::Tensor> made;
    variable_list saved{x, weights};
    for (std::size_t e = 0; e < layer->inputs.size(); ++e) {
      saved.push_back(layer->inputs[e].forward(layer->gathered(x, e)));
      const at::Tensor h = activate_rows(saved.back(), layer->activation);
      layer->scale(h, weights, e);
      made.push_back(layer->outputs[e].forward(h));
    }
    context->save_for_backward(saved);
    keep(context, layer);
    return layer->summed(made, x);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("experts.backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weights = saved[1], dy = grads[0].contiguous();
    const auto layer = kept<std::shared_ptr<const Layer>>(context);
    const std::size_t count = layer->inputs.size();
    const at::Tensor dweights = at::zeros_like(weights);
    std::vector<at::Tensor> made(count);
    variable_list of_leaves;
    for (std::size_t e = 0; e < count; ++e) {
      const at::Tensor &inner = saved[2 + e], dout = layer->gathered(dy, e);
      const at::Tensor h = activate_rows(inner, layer->activation);
      const at::Tensor dh = layer->outputs[e].input_gradient(dout);
      layer->dots(h, dh, dweights, e);
      layer->scale(h, weights, e);
      layer->scale(dh, weights, e);
      const auto of_output = layer->outputs[e].parameter_gradients(h, dout);
      const at::Tensor dinner = activation_gradient(inner, dh, layer->activation);
      const auto of_input = layer->inputs[e].parameter_gradients(layer->gathered(x, e), dinner);
      of_leaves.insert(of_leaves.end(), of_input.begin(), of_input.end());
      of_leaves.insert(of_leaves.end(), of_output.begin(), of_output.end());
      made[e] = layer->inputs[e].input_gradient(dinner);
    }
    variable_list result{layer->summed(made, x), dweights};
    result.insert(result.end(), of_leaves.begin(), of_leaves.end());
    result.emplace_back();  // layer
    return result;
  }
};

// The same by plain ATen and the operators of a device: rows are counted on the host.
at::Tensor experts_one_by_one(const at::Tensor& x, const Routes& routes,
                              const std::vector<ExpertWeights>& weights, Activation activation,
                              int64_t capacity) {
  at::Tensor y = at::zeros_like(x);
  const at::Tensor by_choice = routes.experts.t();
  const at::Tensor flat = routes.weights.flatten();
  for (std::size_t e = 0; e < weights.size(); ++e) {
    at::Tensor found = at::nonzero(by_choice.eq(static_cast<int64_t>(e)));  // choice, row
    if (capacity > 0) found = found.narrow(0, 0, std::min(capacity, found.size(0)));
    const at::Tensor rows = found.select(1, 1);
    const at::Tensor pairs = rows * routes.weights.size(1) + found.select(1, 0);
    const at::Tensor inner = linear(x.index_select(0, rows), weights[e].input, {});
    const at::Tensor made = linear(activate(inner, activation), weights[e].output, {});
    const at::Tensor weight = flat.index_select(0, pairs).unsqueeze(1).to(made.scalar_type());
    y = y.index_add(0, rows, made * weight);
  }
  return y;
}

}  // namespace

at::Tensor experts(const at::Tensor& x, const Routes& routes,
                   const std::vector<ExpertWeights>& weights, Activation activation,
                   int64_t capacity) {
  core::require(x.dim() == 2 && routes.experts.dim() == 2 && routes.experts.size(0) == x.size(0) &&
                    routes.weights.sizes() == routes.experts.sizes() && !weights.empty() &&
                    capacity >= 0,
                "experts takes rows [rows, width] with the weights and numbers of their experts, ",
                "not the shapes ", x.sizes(), ", ", routes.weights.sizes(), " and ",
                routes.experts.sizes(), ".");
  for (const auto& each : weights) {
    check_linear(x.size(1), x, each.input);
    check_linear(activated_size(each.input.compute.size(0), activation), x, each.output);
  }
  const core::Scope scope("experts.forward");
  if (runs_plain(x)) {
    return experts_one_by_one(x, routes, weights, activation, capacity);
  }
  auto layer = std::make_shared<Layer>();
  layer->places = places_of(routes.experts.contiguous(), std::ssize(weights), capacity);
  layer->activation = activation;
  std::vector<at::Tensor> leaves;
  for (const auto& each : weights) {
    layer->inputs.emplace_back(each.input, Weight{});
    layer->outputs.emplace_back(each.output, Weight{});
    leaves.insert(leaves.end(), each.input.leaves.begin(), each.input.leaves.end());
    leaves.insert(leaves.end(), each.output.leaves.begin(), each.output.leaves.end());
  }
  return ExpertsFunction::apply(x.contiguous(), routes.weights.contiguous(), at::TensorList(leaves),
                                std::shared_ptr<const Layer>(layer));
}

}  // namespace omnima::ops
