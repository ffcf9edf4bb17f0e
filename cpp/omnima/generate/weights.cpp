// Finds each parameter by its canonical name and checks it.
#include "omnima/generate/weights.h"

#include <ATen/ops/clone.h>

#include <algorithm>
#include <utility>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

using core::ConfigError;
using core::require;

void check_order(HeadOrder order, std::int64_t width) {
  if (order.empty()) return;
  std::sort(order.begin(), order.end());
  for (std::int64_t i = 0; i < width; ++i) {
    require<ConfigError>(static_cast<std::int64_t>(order.size()) == width && order[i] == i,
                         "The order of a head's numbers must name each of 0 to ", width - 1,
                         " once.");
  }
}

class Finder {
 public:
  Finder(const models::DecoderConfig& config, const Parameters& all, const Formats& formats,
         Activations activations, const at::Device& device)
      : config_(config), all_(all), formats_(formats), activations_(activations), device_(device) {}

  quant::Matrix matrix(const std::string& name, std::int64_t outputs, std::int64_t inputs) const {
    const at::Tensor tensor = found(name);
    const auto format = formats_.find(name);
    if (format == formats_.end()) {
      check(name, tensor, {outputs, inputs});
      if (tensor.is_cpu()) return quant::matrix_of(tensor);
      const auto& floats = quant::format_named(tensor.scalar_type() == at::kFloat  ? "f32"
                                               : tensor.scalar_type() == at::kHalf ? "f16"
                                                                                   : "bf16");
      return {&floats, tensor.view(at::kByte), outputs, inputs};
    }
    const auto stored =
        quant::matrix_of(quant::format_named(format->second), tensor, outputs, inputs);
    // Floats of a file may lie where no float may be read.
    const bool floats = stored.format->layout == kernels::BlockLayout::kF32;
    if (!floats || reinterpret_cast<std::uintptr_t>(stored.row(0)) % sizeof(float) == 0) {
      return stored;
    }
    return quant::matrix_of(*stored.format, stored.blocks.clone(), outputs, inputs);
  }

  // In float32, whatever it is stored as: all but matrices are small.
  Weight weight(const std::string& name, const std::vector<std::int64_t>& shape) const {
    if (formats_.contains(name)) {
      return {quant::dequantized_rows(matrix(name, shape.at(0), shape.at(1)), 0, shape.at(0))};
    }
    const at::Tensor tensor = found(name);
    check(name, tensor, shape);
    return {tensor.to(at::kFloat)};
  }

  Norm norm(const std::string& name) const {
    Norm norm{weight(name + ".weight", {config_.hidden_size}), {}};
    if (config_.norm == "layer_norm") norm.bias = weight(name + ".bias", {config_.hidden_size});
    return norm;
  }

  // A merged adapter may have a bias where the configuration has none.
  Linear linear(const std::string& name, std::int64_t outputs, std::int64_t inputs,
                bool bias) const {
    const bool has_one = bias || all_.contains(name + ".bias");
    Linear made = linear(matrix(name + ".weight", outputs, inputs),
                         has_one ? weight(name + ".bias", {outputs}) : Weight{});
    made.place = std::ssize(named_);
    named_[name] = {made.place, outputs, inputs};
    return made;
  }

  Linear linear(const quant::Matrix& matrix, const Weight& bias) const {
    const bool packs = activations_ == Activations::kInt8;
    const bool in_halves =
        activations_ == Activations::kBf16 && matrix.format->layout == kernels::BlockLayout::kBf16;
    Linear made{matrix,         packs ? quant::packed(matrix, packed_) : nullptr,
                in_halves,      bias,
                matrix.outputs, matrix.inputs};
    rounds_ |= in_halves || made.packed != nullptr;
    if (!in_halves && matrix.format->layout == kernels::BlockLayout::kBf16 &&
        matrix.blocks.is_cpu()) {
      made.half = std::ssize(halves_);
      halves_.push_back(matrix);
    }
    return made;
  }

  Mlp mlp(const std::string& name, std::int64_t inner) const {
    const auto& c = config_;
    return {c.gated() ? linear(name + ".gate_proj", inner, c.hidden_size, c.mlp_bias) : Linear{},
            linear(name + ".up_proj", inner, c.hidden_size, c.mlp_bias),
            linear(name + ".down_proj", c.hidden_size, inner, c.mlp_bias)};
  }

  Layer layer(std::int64_t index) const {
    const std::string at = "model.layers." + std::to_string(index) + ".";
    const auto& c = config_;
    const std::int64_t queries = c.num_attention_heads * c.head_dim;
    const std::int64_t keys = c.num_key_value_heads * c.head_dim;
    Layer layer;
    if (c.norms_before()) {
      layer.input_norm = norm(at + "input_layernorm");
      layer.mlp_norm = norm(at + "post_attention_layernorm");
    }
    if (c.norms_after()) {
      layer.attention_output_norm = norm(at + "attention_output_layernorm");
      layer.mlp_output_norm = norm(at + "mlp_output_layernorm");
    }
    layer.q = linear(at + "self_attn.q_proj", queries, c.hidden_size, c.attention_bias);
    layer.k = linear(at + "self_attn.k_proj", keys, c.hidden_size, c.attention_bias);
    layer.v = linear(at + "self_attn.v_proj", keys, c.hidden_size, c.attention_bias);
    layer.o = linear(at + "self_attn.o_proj", c.hidden_size, queries,
                     c.attention_bias && c.attention_output_bias);
    if (c.qk_norm) {
      const bool all = c.qk_norm_over_heads;
      layer.query_norm = weight(at + "self_attn.q_norm.weight", {all ? queries : c.head_dim});
      layer.key_norm = weight(at + "self_attn.k_norm.weight", {all ? keys : c.head_dim});
    }
    const std::string mlp_name = at + "mlp";
    if (!c.has_experts(index)) {
      layer.mlp = mlp(mlp_name, c.intermediate_size);
      return layer;
    }
    layer.router = linear(mlp_name + ".gate", c.num_experts, c.hidden_size, false);
    for (std::int64_t i = 0; i < c.num_experts; ++i) {
      layer.experts.push_back(
          mlp(mlp_name + ".experts." + std::to_string(i), c.moe_intermediate_size));
    }
    if (c.shared_expert_intermediate_size > 0) {
      layer.mlp = mlp(mlp_name + ".shared_expert", c.shared_expert_intermediate_size);
    }
    return layer;
  }

  const std::map<std::string, Weights::Named>& named() const { return named_; }
  const std::vector<quant::Matrix>& halves() const { return halves_; }

  // What was asked for must change something.
  void check_activations() const {
    if (activations_ == Activations::kFloat32 || rounds_) return;
    const bool halves = activations_ == Activations::kBf16;
    throw ConfigError(core::message(
        "activations=\"", halves ? "bf16" : "int8", "\" would change nothing: no matrix of this ",
        "model lies in ",
        halves ? "bfloat16. Take dtype=\"bfloat16\", which rounds the matrices to it"
               : "8 bits or fewer, in a format that such activations meet. Quantize it first, for "
                 "instance with `omnima quantize`",
        ", or leave activations out."));
  }

 private:
  at::Tensor found(const std::string& name) const {
    const auto found = all_.find(name);
    require<ConfigError>(found != all_.end(), "The model has no parameter \"", name,
                         "\", which its configuration asks for.");
    return found->second.detach();
  }

  void check(const std::string& name, const at::Tensor& tensor, at::IntArrayRef shape) const {
    require<ConfigError>(tensor.sizes() == shape, "Parameter \"", name, "\" has shape ",
                         tensor.sizes(), ", but its configuration asks for ", shape, ".");
    const auto type = tensor.scalar_type();
    require<ConfigError>(
        (type == at::kFloat || type == at::kHalf || type == at::kBFloat16) &&
            (tensor.is_cpu() || tensor.device() == device_) && tensor.is_contiguous(),
        "Parameter \"", name, "\" is ", tensor.toString(),
        "; writing needs contiguous float32, float16 or bfloat16 in the CPU's memory, or bytes "
        "with the name of their format. Convert the model first.");
  }

  const models::DecoderConfig& config_;
  const Parameters& all_;
  const Formats& formats_;
  Activations activations_;
  at::Device device_;
  mutable std::map<std::string, Weights::Named> named_;
  mutable std::vector<quant::Matrix> halves_;
  mutable bool rounds_ = false;         // whether a matrix meets rounded activations
  mutable quant::PackedMemory packed_;  // in the order in which a token reads them
};

}  // namespace

Activations activations_named(const std::string& name) {
  if (name == "float32") return Activations::kFloat32;
  if (name == "bf16") return Activations::kBf16;
  if (name == "int8") return Activations::kInt8;
  throw ConfigError(
      core::message("activations is \"", name, "\"; the choices are float32, bf16 and int8."));
}

Weights::Weights(const models::DecoderConfig& config, const Parameters& parameters,
                 const Formats& formats, Activations activations, HeadOrder order,
                 const at::Device& device)
    : head_order(std::move(order)) {
  check_order(head_order, config.head_dim);
  const Finder find(config, parameters, formats, activations, device);
  embedding = find.matrix("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  if (config.positions == "learned") {
    positions = find.matrix("model.embed_positions.weight", config.max_position_embeddings,
                            config.hidden_size);
  }
  if (config.positions == "relative") {
    relative_bias = find.weight("model.relative_bias.weight",
                                {config.relative_buckets, config.num_attention_heads});
  }
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) layers.push_back(find.layer(i));
  linears = find.named();
  norm = find.norm("model.norm");
  head = config.tie_word_embeddings
             ? find.linear(embedding, {})
             : find.linear("lm_head", config.vocab_size, config.hidden_size, false);
  halves = find.halves();
  find.check_activations();
}

}  // namespace omnima::generate
