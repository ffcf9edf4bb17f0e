// What a decoder-only language model looks like. The fields are described once, in
// decoder_config.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "omnima/core/block_pattern.h"
#include "omnima/core/field.h"

namespace omnima::models {

struct DecoderConfig {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 0;  // the context length in tokens
  std::string norm = "rms_norm";             // rms_norm | layer_norm (layer_norm carries a bias)
  double norm_eps = 1e-5;
  std::string positions = "rotary";  // rotary | learned | alibi | relative | none
  double rope_theta = 10000.0;
  std::string activation =
      "swiglu";                 // swiglu | geglu | geglu_tanh (gated); gelu | gelu_tanh | relu2
  bool attention_bias = false;  // on q, k, v and the output projection
  bool mlp_bias = false;
  bool tie_word_embeddings = true;
  double dropout = 0.0;  // after the embedding, the attention and the mlp; in training only
  double embedding_dropout = -1;  // after the embedding, where it is not `dropout`
  double attention_dropout = 0.0;
  double layer_drop = 0.0;
  double initializer_range = 0.02;
  bool depth_scaled_init = true;  // output projections drawn with std / sqrt(2 * layers)

  bool attention_output_bias = true;
  bool qk_norm = false;
  bool qk_norm_over_heads = false;
  std::string norm_placement = "before";  // before | after | both, of attention and mlp
  bool parallel_residual = false;
  double embedding_multiplier = 1.0;
  double attention_scale = 0.0;  // 0: 1 / sqrt(head_dim)
  double partial_rotary_factor = 1.0;
  std::int64_t no_rope_layer_interval = 0;
  double rope_local_theta = 0.0;
  std::string rope_scaling = "none";  // none | linear | dynamic | yarn | llama3
  double rope_factor = 1.0;
  std::int64_t rope_original_context = 0;
  double rope_beta_fast = 32.0;
  double rope_beta_slow = 1.0;
  double rope_attention_factor = 0.0;
  double rope_low_freq_factor = 1.0;
  double rope_high_freq_factor = 4.0;
  std::int64_t relative_buckets = 32;
  std::int64_t relative_max_distance = 128;
  std::int64_t sliding_window = 0;
  std::int64_t sliding_window_pattern = 0;
  std::int64_t blocksparse_block_size = 0;
  std::int64_t blocksparse_num_local_blocks = 4;
  std::int64_t blocksparse_vert_stride = 8;
  bool blocksparse_homo_head_pattern = false;
  std::int64_t dense_attention_every_n_layers = 0;
  std::int64_t num_experts = 0;  // 0: a plain mlp
  std::int64_t num_experts_per_tok = 2;
  std::int64_t moe_intermediate_size = 0;
  std::int64_t shared_expert_intermediate_size = 0;
  std::int64_t decoder_sparse_step = 1;
  bool norm_topk_prob = true;
  double expert_capacity = 0.0;
  double router_aux_loss_coef = 0.01;
  double router_z_loss_coef = 0.001;
  double attention_softcap = 0.0;
  double logit_softcap = 0.0;
  bool causal = true;
  bool reward_head = false;           // one number a token in the place of logits
  std::int64_t prediction_heads = 0;  // in training only, see models/prediction_heads.h

  bool gated() const;
  bool drops() const;  // whether training leaves anything out at random
  bool norms_before() const;
  bool norms_after() const;
  std::int64_t rotary_dims() const;                  // of a head, from its first on: even
  bool is_turned(std::int64_t layer) const;          // by rotary positions
  bool is_turned_locally(std::int64_t layer) const;  // by those of rope_local_theta
  double scale_of_scores() const;
  std::int64_t window_of(std::int64_t layer) const;  // 0: the whole context
  std::int64_t blocksparse_shift() const;            // of the strided blocks, from head to head
  core::BlockPattern blocks_of(std::int64_t layer) const;  // size 0: all are seen
  // Pairs of a query and a key that it sees in a row of `time` tokens, of all layers and heads.
  double seen_pairs(std::int64_t time) const;
  bool has_experts(std::int64_t layer) const;

  static const std::vector<core::Field>& fields();
  // From named values; an unknown name is an error that names the nearest field. Checks bounds and
  // consistency, and fills zeros: intermediate_size (that of experts too), num_key_value_heads and
  // head_dim.
  static DecoderConfig from_values(const std::map<std::string, core::FieldValue>& values);
  std::map<std::string, core::FieldValue> values() const;
  void check() const;
};

// Canonical parameter names are those of Hugging Face's Llama, weights [out, in]:
//   model.embed_tokens.weight [vocab, hidden], model.embed_positions.weight [context, hidden]
//   (learned), model.relative_bias.weight [buckets, heads] (relative),
//   model.layers.N.input_layernorm.{weight,bias}, .self_attn.{q,k,v,o}_proj.{weight,bias},
//   .self_attn.{q,k}_norm.weight [head_dim, or of all heads] (qk_norm),
//   .post_attention_layernorm.{weight,bias}, which stands before the mlp;
//   .attention_output_layernorm.{weight,bias} and .mlp_output_layernorm.{weight,bias} where norms
//   stand after them (input_layernorm and post_attention_layernorm where they stand before them),
//   .mlp.{gate,up,down}_proj.{weight,bias} (gate: where the activation has one); with experts
//   .mlp.gate.weight [experts, hidden], .mlp.experts.M.{gate,up,down}_proj.weight and
//   .mlp.shared_expert.{gate,up,down}_proj.weight, as Qwen3-MoE and Qwen2-MoE have them;
//   model.norm.{weight,bias}, lm_head.weight (untied).

}  // namespace omnima::models
