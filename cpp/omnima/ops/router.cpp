#include "omnima/ops/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "omnima/core/error.h"
#include "omnima/core/scope.h"
#include "omnima/ops/linear.h"
#include "omnima/ops/linear_rows.h"
#include "omnima/ops/row_parts.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Router {
  LinearRows linear;
  RouterOptions options;
};

// Of all rows: the load-balance loss and the z-loss.
at::Tensor router_losses(const at::Tensor& probabilities, const std::vector<int64_t>& coming,
                         const at::Tensor& log_sums) {
  const int64_t rows = probabilities.size(0), experts = probabilities.size(1);
  std::vector<double> mean(experts);
  double squares = 0, balance = 0;
  const auto *p = probabilities.const_data_ptr<float>(), *z = log_sums.const_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row, p += experts) {
    for (int64_t e = 0; e < experts; ++e) mean[e] += p[e];
    squares += static_cast<double>(z[row]) * z[row];
  }
  const auto count = static_cast<double>(rows);
  for (int64_t e = 0; e < experts; ++e) {
    balance += static_cast<double>(coming[e]) / count * (mean[e] / count);
  }
  at::Tensor losses = at::empty({2}, at::kFloat);
  losses.data_ptr<float>()[0] = static_cast<float>(static_cast<double>(experts) * balance);
  losses.data_ptr<float>()[1] = static_cast<float>(squares / count);
  return losses;
}

// How many rows come to each expert.
std::vector<int64_t> rows_coming(const at::Tensor& chosen, int64_t experts) {
  std::vector<int64_t> coming(experts);
  const auto* which = chosen.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < chosen.numel(); ++i) ++coming[which[i]];
  return coming;
}

struct RouterFunction : torch::autograd::Function<RouterFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, at::TensorList,
                               const Router& router) {
    const at::Tensor p = router.linear.forward(x.to(at::kFloat));  // logits, then probabilities
    const int64_t rows = p.size(0), experts = p.size(1), chosen = router.options.chosen;
    const at::Tensor weights = at::empty({rows, chosen}, p.options());
    const at::Tensor which = at::empty({rows, chosen}, p.options().dtype(at::kLong));
    const at::Tensor log_sums = at::empty({rows}, p.options());
    in_parts(rows, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        log_sums.data_ptr<float>()[row] = choose_experts(
            p.data_ptr<float>() + row * experts, experts, router.options,
            which.data_ptr<int64_t>() + row * chosen, weights.data_ptr<float>() + row * chosen);
      }
    });
    context->set_materialize_grads(false);
    context->mark_non_differentiable({which});
    context->save_for_backward({x, p, which, log_sums});
    keep(context, router);
    if (!router.options.losses) return {weights, which};
    return {weights, which, router_losses(p, rows_coming(which, experts), log_sums)};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const core::Scope scope("route.backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &p = saved[1];
    const auto [linear, options] = kept<Router>(context);
    const at::Tensor by_losses = options.losses ? grads[2] : at::Tensor();
    const at::Tensor dlogits =
        gradient_of_logits(p, saved[2], saved[3], grads[0], by_losses, options.normalise);
    variable_list result{linear.input_gradient(dlogits).to(x.scalar_type())};
    for (const auto& each : linear.parameter_gradients(x.to(at::kFloat), dlogits)) {
      result.push_back(each);
    }
    result.emplace_back();  // router
    return result;
  }

  // dweights [rows, chosen] and dlosses [2], undefined where nothing came back.
  static at::Tensor gradient_of_logits(const at::Tensor& p, const at::Tensor& which,
                                       const at::Tensor& log_sums, const at::Tensor& dweights,
                                       const at::Tensor& dlosses, bool normalise) {
    const int64_t rows = p.size(0), experts = p.size(1), chosen = which.size(1);
    std::vector<float> even(experts);  // what the load-balance loss gives to every row
    float by_square = 0;
    if (dlosses.defined()) {
      const float* slope = dlosses.const_data_ptr<float>();
      const auto count = static_cast<float>(rows);
      const auto coming = rows_coming(which, experts);
      for (int64_t e = 0; e < experts; ++e) {
        even[e] = slope[0] * static_cast<float>(experts * coming[e]) / (count * count);
      }
      by_square = 2 * slope[1] / count;
    }
    const at::Tensor given = dweights.defined() ? dweights.contiguous() : dweights;
    const at::Tensor dlogits = at::empty_like(p);
    in_parts(rows, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* share = p.const_data_ptr<float>() + row * experts;
        const int64_t* to = which.const_data_ptr<int64_t>() + row * chosen;
        float* d = dlogits.data_ptr<float>() + row * experts;
        std::copy(even.begin(), even.end(), d);
        if (given.defined()) {
          const float* dw = given.const_data_ptr<float>() + row * chosen;
          float total = 1, weighted = 0;
          if (normalise) {
            total = 0;
            for (int64_t i = 0; i < chosen; ++i) total += share[to[i]];
            for (int64_t i = 0; i < chosen; ++i) weighted += dw[i] * share[to[i]] / total;
          }
          for (int64_t i = 0; i < chosen; ++i) d[to[i]] += (dw[i] - weighted) / total;
        }
        float dot = 0;
        for (int64_t e = 0; e < experts; ++e) dot += d[e] * share[e];
        const float square = by_square * log_sums.const_data_ptr<float>()[row];
        for (int64_t e = 0; e < experts; ++e) d[e] = share[e] * (d[e] - dot + square);
      }
    });
    return dlogits;
  }
};

// The meaning in plain ATen.
Routes route_plainly(const at::Tensor& x, const Weight& weight, const RouterOptions& options) {
  const at::Tensor logits = linear(x.to(at::kFloat), weight, {});
  const at::Tensor p = at::softmax(logits, -1);
  auto [weights, which] = at::topk(p, options.chosen, -1);
  if (options.normalise) weights = weights / weights.sum(-1, true);
  if (!options.losses) return {weights, which, {}};
  const auto rows = static_cast<double>(x.size(0));
  const at::Tensor sent = which.flatten();
  const at::Tensor coming =
      at::zeros({p.size(1)}, p.options()).scatter_add(0, sent, at::ones_like(sent, p.options()));
  const at::Tensor balance = (coming / rows * p.mean(0)).sum() * p.size(1);
  return {weights, which, at::stack({balance, at::logsumexp(logits, {-1}).square().mean()})};
}

}  // namespace

float choose_experts(float* logits, int64_t experts, const RouterOptions& options, int64_t* which,
                     float* weights) {
  const float most = *std::max_element(logits, logits + experts);
  float sum = 0;
  for (int64_t e = 0; e < experts; ++e) sum += logits[e] = std::exp(logits[e] - most);
  for (int64_t e = 0; e < experts; ++e) logits[e] /= sum;
  float total = 0;
  for (int64_t i = 0; i < options.chosen; ++i) {
    int64_t best = -1;
    for (int64_t e = 0; e < experts; ++e) {
      if (std::find(which, which + i, e) != which + i) continue;
      // A NaN is never greater: the first expert that is left stands for it.
      if (best < 0 || logits[e] > logits[best]) best = e;
    }
    which[i] = best;
    weights[i] = logits[best];
    total += logits[best];
  }
  for (int64_t i = 0; options.normalise && i < options.chosen; ++i) weights[i] /= total;
  return most + std::log(sum);
}

Routes route(const at::Tensor& x, const Weight& weight, const RouterOptions& options) {
  core::require(x.dim() == 2 && x.size(1) == weight.compute.size(1) &&
                    weight.compute.scalar_type() == at::kFloat && options.chosen > 0 &&
                    options.chosen <= weight.compute.size(0),
                "route takes rows of ", weight.compute.size(1), " numbers and sends each to 1 to ",
                weight.compute.size(0), " experts by a float32 weight, not the shape ", x.sizes(),
                " to ", options.chosen, ".");
  const core::Scope scope("route.forward");
  if (!x.is_cpu() || reference_mode()) return route_plainly(x, weight, options);
  const auto made = RouterFunction::apply(x.contiguous(), at::TensorList(weight.leaves),
                                          Router{LinearRows(weight, {}), options});
  return {made[0], made[1], options.losses ? made[2] : at::Tensor()};
}

}  // namespace omnima::ops
