#include "omnima/models/decoder_config_checks.h"

#include "omnima/core/error.h"

namespace omnima::models {
namespace {

using core::ConfigError;
using core::require;

void check_rotary(const DecoderConfig& c) {
  const DecoderConfig plain;
  const bool scaled = c.rope_scaling != "none";
  require<ConfigError>(!scaled || c.positions == "rotary", "rope_scaling ", c.rope_scaling,
                       " stretches rotary positions, but positions is ", c.positions,
                       ": set positions to rotary, or leave rope_scaling out.");
  require<ConfigError>(scaled || (c.rope_factor == 1 && c.rope_original_context == 0),
                       "rope_factor and rope_original_context have no effect without rope_scaling: "
                       "set it to linear, dynamic, yarn or llama3, or leave them out.");
  const bool yarn = c.rope_scaling == "yarn", llama3 = c.rope_scaling == "llama3";
  require<ConfigError>(yarn || (c.rope_beta_fast == plain.rope_beta_fast &&
                                c.rope_beta_slow == plain.rope_beta_slow &&
                                c.rope_attention_factor == plain.rope_attention_factor),
                       "rope_beta_fast, rope_beta_slow and rope_attention_factor belong to "
                       "rope_scaling yarn, but it is ",
                       c.rope_scaling, ": leave them out, or set rope_scaling to yarn.");
  require<ConfigError>(llama3 || (c.rope_low_freq_factor == plain.rope_low_freq_factor &&
                                  c.rope_high_freq_factor == plain.rope_high_freq_factor),
                       "rope_low_freq_factor and rope_high_freq_factor belong to rope_scaling "
                       "llama3, but it is ",
                       c.rope_scaling, ": leave them out, or set rope_scaling to llama3.");
  require<ConfigError>(!yarn || c.rope_beta_fast > c.rope_beta_slow, "rope_beta_fast ",
                       c.rope_beta_fast, " must be greater than rope_beta_slow ", c.rope_beta_slow,
                       ": between them the frequencies pass from kept to stretched.");
  require<ConfigError>(!yarn || c.rope_theta > 1,
                       "rope_theta 1 gives every pair the same frequency, which yarn cannot tell "
                       "apart: take a larger one, such as 10000.");
  require<ConfigError>(!llama3 || c.rope_high_freq_factor > c.rope_low_freq_factor,
                       "rope_high_freq_factor ", c.rope_high_freq_factor,
                       " must be greater than rope_low_freq_factor ", c.rope_low_freq_factor,
                       ": between them the frequencies pass from stretched to kept.");
  require<ConfigError>(!scaled || c.rope_original_context <= c.max_position_embeddings,
                       "rope_original_context ", c.rope_original_context,
                       " is longer than max_position_embeddings ", c.max_position_embeddings,
                       ": scaling stretches to a longer context, never to a shorter one.");
  require<ConfigError>(c.rope_scaling != "dynamic" || c.rotary_dims() > 2,
                       "rope_scaling dynamic needs at least 4 turned numbers in a head, not ",
                       c.rotary_dims(),
                       ": with a single pair there is nothing to spread the stretch over.");
}

// Which numbers turn, in which layers and how fast.
void check_turned(const DecoderConfig& c) {
  const bool said =
      c.partial_rotary_factor != 1 || c.no_rope_layer_interval > 0 || c.rope_local_theta > 0;
  require<ConfigError>(c.positions == "rotary" || !said,
                       "partial_rotary_factor, no_rope_layer_interval and rope_local_theta are of "
                       "rotary positions, but positions is ",
                       c.positions, ": leave them out, or set positions to rotary.");
  if (c.positions != "rotary") return;
  require<ConfigError>(c.rotary_dims() >= 2 && c.rotary_dims() % 2 == 0, "partial_rotary_factor ",
                       c.partial_rotary_factor, " turns ", c.rotary_dims(),
                       " numbers of a head of ", c.head_dim,
                       ", but rotary positions turn pairs: let the product be even.");
  require<ConfigError>(c.no_rope_layer_interval != 1,
                       "no_rope_layer_interval 1 takes rotary positions from every layer: set "
                       "positions to none, or let every second or later layer go without.");
  require<ConfigError>(c.rope_local_theta == 0 || c.sliding_window > 0,
                       "rope_local_theta is of layers with a sliding window, but there is none: "
                       "set sliding_window, or leave rope_local_theta out.");
  require<ConfigError>(c.rope_local_theta == 0 || c.rope_local_theta >= 1, "rope_local_theta ",
                       c.rope_local_theta, " must be at least 1, or 0 for the others' base.");
}

void check_norms(const DecoderConfig& c) {
  require<ConfigError>(
      c.qk_norm || !c.qk_norm_over_heads,
      "qk_norm_over_heads says what qk_norm is taken over, but qk_norm is off: set "
      "both, or neither.");
  require<ConfigError>(c.attention_bias || c.attention_output_bias,
                       "attention_output_bias false takes one of the biases of attention_bias, "
                       "which is off: leave it out.");
  const bool before = c.norm_placement == "before";
  require<ConfigError>(before || !c.parallel_residual, "norm_placement ", c.norm_placement,
                       " and parallel_residual do not go together: norms then stand before.");
  require<ConfigError>(c.norms_before() || c.num_experts == 0,
                       "norm_placement after leaves the experts' router without a norm before it: "
                       "take both, or no experts.");
}

void check_experts(const DecoderConfig& c) {
  const DecoderConfig plain;
  const bool said = c.num_experts_per_tok != plain.num_experts_per_tok ||
                    c.moe_intermediate_size > 0 || c.shared_expert_intermediate_size > 0 ||
                    c.decoder_sparse_step != plain.decoder_sparse_step ||
                    c.norm_topk_prob != plain.norm_topk_prob || c.expert_capacity > 0 ||
                    c.router_aux_loss_coef != plain.router_aux_loss_coef ||
                    c.router_z_loss_coef != plain.router_z_loss_coef;
  require<ConfigError>(c.num_experts > 0 || !said,
                       "num_experts_per_tok, moe_intermediate_size, norm_topk_prob, "
                       "shared_expert_intermediate_size, decoder_sparse_step, expert_capacity and "
                       "the router's losses have no effect without experts: set num_experts, or "
                       "leave them out.");
  if (c.num_experts == 0) return;
  require<ConfigError>(c.num_experts > 1,
                       "num_experts 1 is a plain mlp with a router that has no choice: take 2 or "
                       "more experts, or leave num_experts out.");
  require<ConfigError>(c.num_experts_per_tok <= c.num_experts, "num_experts_per_tok ",
                       c.num_experts_per_tok, " is more than the num_experts ", c.num_experts,
                       " that there are: lower it, or take more experts.");
  require<ConfigError>(c.num_experts_per_tok > 1 || !c.norm_topk_prob,
                       "norm_topk_prob makes the weight of a single expert always 1, from which "
                       "the router learns nothing: set norm_topk_prob to false, or "
                       "num_experts_per_tok to 2.");
  require<ConfigError>(!c.mlp_bias,
                       "mlp_bias is not there for experts, which have no biases: leave out "
                       "mlp_bias or num_experts.");
  require<ConfigError>(c.decoder_sparse_step <= c.num_hidden_layers, "decoder_sparse_step ",
                       c.decoder_sparse_step, " gives none of the ", c.num_hidden_layers,
                       " layers experts: lower it, or leave num_experts out.");
  require<ConfigError>(c.expert_capacity == 0 || c.expert_capacity >= 1, "expert_capacity ",
                       c.expert_capacity,
                       " is below an even share, so that tokens would always be left out: take 1 "
                       "or more (1.25 is usual), or 0 for no bound.");
}

// Whether some head's strided blocks lie before the local ones of the context's last token.
bool strides_reach(const DecoderConfig& c, const core::BlockPattern& blocks) {
  const std::int64_t last = (c.max_position_embeddings - 1) / blocks.size;
  for (std::int64_t head = 0; head < c.num_attention_heads; ++head) {
    const std::int64_t first = blocks.stride - 1 - head * blocks.shift % blocks.stride;
    if (first <= last - blocks.local) return true;
    if (blocks.shift == 0) return false;
  }
  return false;
}

void check_blocks(const DecoderConfig& c) {
  const DecoderConfig plain;
  const std::int64_t size = c.blocksparse_block_size, local = c.blocksparse_num_local_blocks;
  const bool said = local != plain.blocksparse_num_local_blocks ||
                    c.blocksparse_vert_stride != plain.blocksparse_vert_stride ||
                    c.blocksparse_homo_head_pattern || c.dense_attention_every_n_layers > 0;
  require<ConfigError>(size > 0 || !said,
                       "blocksparse_num_local_blocks, blocksparse_vert_stride, "
                       "blocksparse_homo_head_pattern and dense_attention_every_n_layers have no "
                       "effect on dense attention: set blocksparse_block_size (64 is usual), or "
                       "leave them out.");
  if (size == 0) return;
  require<ConfigError>(c.sliding_window == 0,
                       "blocksparse_block_size and sliding_window both say which tokens one sees: "
                       "take one of the two (blocksparse_num_local_blocks blocks are a window).");
  require<ConfigError>(c.causal,
                       "blocksparse_block_size looks back only, but causal false looks ahead, too: "
                       "take one of the two.");
  require<ConfigError>(c.dense_attention_every_n_layers != 1,
                       "dense_attention_every_n_layers 1 leaves no layer block-sparse: leave out "
                       "blocksparse_block_size, or let every second or later layer be dense.");
  require<ConfigError>(c.blocksparse_vert_stride > 1,
                       "blocksparse_vert_stride 1 lets every block be seen, which is dense "
                       "attention: take 2 or more (8 is usual), or leave blocksparse_block_size "
                       "out.");
  require<ConfigError>(local * size < c.max_position_embeddings, "blocksparse_num_local_blocks ",
                       local, " of ", size, " tokens cover the whole context of ",
                       c.max_position_embeddings,
                       " tokens and would change nothing: take fewer or smaller blocks, or leave "
                       "blocksparse_block_size out.");
  require<ConfigError>(
      strides_reach(c, {size, local, c.blocksparse_vert_stride, c.blocksparse_shift()}),
      "blocksparse_vert_stride ", c.blocksparse_vert_stride, " reaches no block of ", size,
      " tokens that is not local anyway in a context of ", c.max_position_embeddings,
      " tokens: lower it, or take sliding_window ", local * size, " alone.");
}

void check_options(const DecoderConfig& c) {
  require<ConfigError>(c.sliding_window_pattern == 0 || c.sliding_window > 0,
                       "sliding_window_pattern ", c.sliding_window_pattern,
                       " says which layers have no window, but there is no sliding_window: give "
                       "its length in tokens.");
  require<ConfigError>(c.sliding_window_pattern != 1,
                       "sliding_window_pattern 1 takes the window from every layer: drop "
                       "sliding_window, or let every second or later layer see the whole context.");
  require<ConfigError>(c.sliding_window < c.max_position_embeddings || c.sliding_window == 0 ||
                           c.rope_local_theta > 0,
                       "sliding_window ", c.sliding_window, " covers the whole context of ",
                       c.max_position_embeddings,
                       " tokens and would change nothing: make it smaller, or leave it out.");
  const DecoderConfig plain;
  require<ConfigError>(
      c.positions == "relative" || (c.relative_buckets == plain.relative_buckets &&
                                    c.relative_max_distance == plain.relative_max_distance),
      "relative_buckets and relative_max_distance belong to positions relative, "
      "but positions is ",
      c.positions, ": leave them out, or set positions to relative.");
  require<ConfigError>(c.relative_max_distance > c.relative_buckets / 2, "relative_max_distance ",
                       c.relative_max_distance, " must be greater than half of relative_buckets ",
                       c.relative_buckets,
                       ": the nearer half of the buckets hold one distance each.");
  require<ConfigError>(c.embedding_dropout >= 0 || c.embedding_dropout == -1, "embedding_dropout ",
                       c.embedding_dropout,
                       " is no probability: give 0 to 0.95, or -1 for the same as dropout.");
  require<ConfigError>(c.causal || c.positions == "rotary" || c.positions == "learned",
                       "causal false goes with positions rotary or learned, not with ", c.positions,
                       ", which say nothing about the tokens that follow.");
  require<ConfigError>(c.causal || c.prediction_heads == 0,
                       "prediction_heads predict tokens that causal false would show them: take "
                       "one of the two.");
  require<ConfigError>(!c.reward_head || (c.causal && c.prediction_heads == 0),
                       "reward_head reads a text at its last token: it goes with causal true and "
                       "without prediction_heads.");
  require<ConfigError>(c.prediction_heads < c.max_position_embeddings, "prediction_heads ",
                       c.prediction_heads, " look past the end of a context of ",
                       c.max_position_embeddings, " tokens: take fewer heads.");
  require<ConfigError>(c.layer_drop == 0 || c.num_hidden_layers > 1, "layer_drop ", c.layer_drop,
                       " would leave the only block out, and with it everything between embedding "
                       "and head: take at least 2 layers, or no layer_drop.");
}

}  // namespace

void check_together(const DecoderConfig& config) {
  check_rotary(config);
  check_turned(config);
  check_norms(config);
  check_options(config);
  check_blocks(config);
  check_experts(config);
}

}  // namespace omnima::models
