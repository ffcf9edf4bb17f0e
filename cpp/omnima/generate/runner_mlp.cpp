// The feed-forward networks of runner.h, and the experts that tokens are sent to.
#include <algorithm>

#include "omnima/core/scope.h"
#include "omnima/generate/runner.h"
#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/gemm.h"
#include "omnima/ops/router.h"

namespace omnima::generate {

void Runner::mlp(const Layer& weights) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  normalise(weights.mlp_norm, 0, rows);
  if (weights.experts.empty() && adds_at_once(weights.mlp_output_norm)) {
    return pass_mlp(weights.mlp, normed_.data(), rows, x_.data(), true);
  }
  if (weights.mlp.up.outputs > 0) {
    pass_mlp(weights.mlp, normed_.data(), rows, projected_.data());
  } else {
    std::fill_n(projected_.begin(), rows * config_.hidden_size, 0.0f);
  }
  if (!weights.experts.empty()) pass_experts(weights);
  add_to_residual(weights.mlp_output_norm);
}

void Runner::pass_mlp(const Mlp& mlp, const float* x, std::int64_t rows, float* y, bool add) {
  const std::int64_t inner = mlp.up.outputs;
  const auto most = static_cast<std::int64_t>(rows_.size());  // any expert may be sent all rows
  if (in_halves() && config_.gated() && groups_.empty()) {
    grow(activated_, inner);
    pass_gated(mlp, x, rows);
    return products({{&mlp.down, y, config_.hidden_size, add}}, activated_.data(), rows);
  }
  grow(inner_, 2 * most * inner);
  grow(activated_, most * inner);
  if (config_.gated()) {
    products({{&mlp.gate, inner_.data(), 2 * inner}, {&mlp.up, &inner_[inner], 2 * inner}}, x,
             rows);
  } else {
    products({{&mlp.up, inner_.data(), inner}}, x, rows);
  }
  const std::int64_t stride = (config_.gated() ? 2 : 1) * inner;
  {
    const core::Scope scope("activation");
    share(rows, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t row = begin; row < end; ++row) {
        activate(&inner_[row * stride], inner, &activated_[row * inner]);
      }
    });
  }
  products({{&mlp.down, y, config_.hidden_size, add}}, activated_.data(), rows);
  pass_bottlenecks(mlp.down, y);
}

// Leaves the mlp's middle in middle_, for the product that takes activated_.
void Runner::pass_gated(const Mlp& mlp, const float* x, std::int64_t rows) {
  const std::int64_t inner = mlp.up.outputs, hidden = mlp.up.inputs;
  const core::Scope scope("products", 4.0 * static_cast<double>(rows * inner * hidden),
                          static_cast<double>(mlp.gate.weight.bytes() + mlp.up.weight.bytes()));
  take_halves(x, rows, hidden);
  middle_.begin(rows, inner);
  halves_.run_gated(
      mlp.gate, mlp.up,
      [&](float* sums, std::int64_t count, kernels::bfloat16* made) {
        if (config_.activation == "swiglu") {
          return kernels::activation_kernels<float>().swiglu_rounded(sums, made, count);
        }
        activate(sums, count, sums);
        kernels::gemm_kernels<kernels::bfloat16>().convert(sums, count, made);
      },
      middle_);
  halves_of_ = activated_.data();
}

const std::vector<std::vector<Runner::Sent>>& Runner::routes(const Linear& router) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t experts = router.outputs;
  const ops::RouterOptions options{config_.num_experts_per_tok, config_.norm_topk_prob};
  grow(routed_, rows * experts);
  products({{&router, routed_.data(), experts}}, normed_.data(), rows);
  sent_.resize(static_cast<std::size_t>(experts));
  for (auto& to_one : sent_) {
    to_one.clear();
    to_one.reserve(static_cast<std::size_t>(rows));
  }
  chosen_.resize(static_cast<std::size_t>(options.chosen));
  chosen_weights_.resize(chosen_.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    ops::choose_experts(&routed_[row * experts], experts, options, chosen_.data(),
                        chosen_weights_.data());
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      sent_[chosen_[i]].push_back({row, chosen_weights_[i]});
    }
  }
  return sent_;
}

void Runner::pass_experts(const Layer& weights) {
  const core::Scope scope("experts");
  const std::int64_t hidden = config_.hidden_size;
  const auto& sent = routes(weights.router);
  grow(gathered_, static_cast<std::int64_t>(rows_.size()) * hidden);
  grow(made_, static_cast<std::int64_t>(rows_.size()) * hidden);
  all_groups_.swap(groups_);
  for (std::size_t expert = 0; expert < sent.size(); ++expert) {
    const auto here = static_cast<std::int64_t>(sent[expert].size());
    if (here == 0) continue;
    for (std::int64_t i = 0; i < here; ++i) {
      std::copy_n(&normed_[sent[expert][i].row * hidden], hidden, &gathered_[i * hidden]);
    }
    group(here, [&](std::int64_t i) { return rows_[sent[expert][i].row].state->change(); });
    pass_mlp(weights.experts[expert], gathered_.data(), here, made_.data());
    for (std::int64_t i = 0; i < here; ++i) {
      const auto [row, weight] = sent[expert][i];
      for (std::int64_t j = 0; j < hidden; ++j) {
        projected_[row * hidden + j] += weight * made_[i * hidden + j];
      }
    }
  }
  groups_.swap(all_groups_);
}

void Runner::activate(const float* x, std::int64_t inner, float* y) {
  const auto& table = kernels::activation_kernels<float>();
  const std::string& name = config_.activation;
  if (name == "swiglu") {
    table.swiglu_forward(x, y, 1, inner);
  } else if (name == "relu2") {
    table.relu2_forward(x, y, inner);
  } else if (config_.gated()) {
    table.geglu_forward(x, y, 1, inner, name == "geglu_tanh");
  } else {
    table.gelu_forward(x, y, inner, name == "gelu_tanh");
  }
}

}  // namespace omnima::generate
