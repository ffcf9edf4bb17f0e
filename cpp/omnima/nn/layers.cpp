#include "omnima/nn/layers.h"

#include "omnima/core/scope.h"
#include "omnima/nn/adapters/adapters.h"
#include "omnima/ops/fused_linear.h"
#include "omnima/ops/head_norm.h"
#include "omnima/ops/linear.h"
#include "omnima/ops/reference.h"

namespace omnima::nn {

Linear::Linear(Arena& arena, int64_t input, const std::vector<Output>& outputs, bool bias) {
  for (const auto& output : outputs) {
    const Slot slot = arena.add({output.name + ".weight", {output.size, input}, output.init_std});
    if (weight_.count++ == 0) weight_.first = slot.first;
  }
  arena.add_factor(weight_);
  if (!bias) return;
  for (const auto& output : outputs) {
    const Slot slot = arena.add({output.name + ".bias", {output.size}});
    if (bias_.count++ == 0) bias_.first = slot.first;
  }
}

at::Tensor Linear::forward(const at::Tensor& x, const Pass& pass) const {
  if (pass.observer != nullptr) pass.observer->see(weight_, x);
  return followed(ops::linear(x, pass.weight(weight_), pass.weight(bias_), adapted(pass)), pass);
}

at::Tensor Linear::followed(const at::Tensor& y, const Pass& pass) const {
  return pass.adapters == nullptr ? y : pass.adapters->behind(weight_, y, pass);
}

ops::Adapted Linear::adapted(const Pass& pass) const {
  return pass.adapters == nullptr ? ops::Adapted{} : pass.adapters->of(weight_, pass);
}

const at::Tensor& Stream::settle() {
  if (change.defined()) {
    const core::Scope scope("residual.forward", 0, 3.0 * static_cast<double>(x.nbytes()));
    x = x.add(change);
    change = at::Tensor();
  }
  return x;
}

at::Tensor Linear::forward(Stream& stream, const Norm& norm, const Pass& pass) const {
  if (!norm.exists()) return forward(stream.settle(), pass);
  if (pass.observer != nullptr) return forward(norm.forward(stream.settle(), pass), pass);
  const auto [sum, y] = ops::norm_linear(stream.x, stream.change, norm.weights(pass),
                                         pass.weight(weight_), pass.weight(bias_), adapted(pass));
  stream = {sum, {}, stream.losses};
  return followed(y, pass);
}

at::Tensor Linear::forward(const at::Tensor& x, ops::Activation activation,
                           const Pass& pass) const {
  if (pass.observer != nullptr) return forward(ops::activate(x, activation), pass);
  return followed(ops::activation_linear(x, activation, pass.weight(weight_), pass.weight(bias_),
                                         adapted(pass)),
                  pass);
}

Norm::Norm(Arena& arena, const std::string& name, int64_t size, bool layer_norm, double eps)
    : weight_(arena.add({name + ".weight", {size}, 0.0, 1.0})), eps_(eps) {
  if (layer_norm) bias_ = arena.add({name + ".bias", {size}});
}

ops::NormWeight Norm::weights(const Pass& pass) const {
  return {pass.weight(weight_), pass.weight(bias_), eps_};
}

at::Tensor Norm::forward(const at::Tensor& x, const Pass& pass) const {
  return ops::norm(x, weights(pass));
}

Attention::Attention(Arena& arena, const std::string& name, const Options& options)
    : shape_(options.shape),
      scores_(options.scores),
      qk_norm_(options.qk_norm),
      turn_(options.turn) {
  const int64_t queries = shape_.heads * shape_.head_dim, keys = shape_.kv_heads * shape_.head_dim;
  input_ = Linear(arena, options.hidden_size,
                  {{name + ".q_proj", queries, options.init_std},
                   {name + ".k_proj", keys, options.init_std},
                   {name + ".v_proj", keys, options.init_std}},
                  options.bias);
  output_ =
      Linear(arena, queries, {{name + ".o_proj", options.hidden_size, options.output_init_std}},
             options.output_bias);
  if (!qk_norm_) return;
  const bool all = options.norm_over_heads;
  query_norm_ =
      Norm(arena, name + ".q_norm", all ? queries : shape_.head_dim, false, options.norm_eps);
  key_norm_ = Norm(arena, name + ".k_norm", all ? keys : shape_.head_dim, false, options.norm_eps);
}

at::Tensor Attention::forward(Stream& stream, const Norm& norm, Pass& pass) const {
  at::Tensor qkv = input_.forward(stream, norm, pass);
  if (qk_norm_) {
    qkv = ops::head_norm(qkv, shape_, query_norm_.weights(pass), key_norm_.weights(pass));
  }
  ops::AttentionOptions scores = scores_;
  scores.bias = pass.attention_bias;
  if (pass.drop.attention > 0) {
    scores.dropout = pass.drop.attention;
    scores.dropout_seed = pass.next_dropout_seed();
  }
  ops::Positions positions = turn_ == Turn::kLocal ? pass.local_positions : pass.positions;
  if (turn_ == Turn::kNone) positions.cos = positions.sin = at::Tensor();
  if (pass.virtuals.places.defined()) {
    qkv = pass.adapters->with_keys_values(qkv, input_.slot(), shape_, positions, pass);
  }
  if (pass.attention_weights != nullptr) {
    pass.attention_weights->push_back(
        ops::reference::attention_weights(qkv, shape_, positions, scores));
  }
  return output_.forward(ops::attention(qkv, shape_, positions, scores), pass);
}

Mlp::Mlp(Arena& arena, const std::string& name, const Options& options)
    : activation_(ops::activation_of(options.activation)) {
  std::vector<Linear::Output> inputs;
  if (ops::is_gated(activation_)) {
    inputs.push_back({name + ".gate_proj", options.intermediate_size, options.init_std});
  }
  inputs.push_back({name + ".up_proj", options.intermediate_size, options.init_std});
  input_ = Linear(arena, options.hidden_size, inputs, options.bias);
  output_ =
      Linear(arena, options.intermediate_size,
             {{name + ".down_proj", options.hidden_size, options.output_init_std}}, options.bias);
}

at::Tensor Mlp::forward(Stream& stream, const Norm& norm, const Pass& pass) const {
  return output_.forward(input_.forward(stream, norm, pass), activation_, pass);
}

at::Tensor Mlp::forward(const at::Tensor& x, const Pass& pass) const {
  return output_.forward(input_.forward(x, pass), activation_, pass);
}

ops::ExpertWeights Mlp::weights(const Pass& pass) const {
  return {input_.weight(pass), output_.weight(pass)};
}

bool Mlp::has_adapters(const Pass& pass) const {
  const bool followed = pass.adapters != nullptr && pass.adapters->follow(output_.slot());
  return followed || !input_.adapted(pass).empty() || !output_.adapted(pass).empty();
}

}  // namespace omnima::nn
