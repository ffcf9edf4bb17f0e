// A decoder of every kind, for the tests that hold for all of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "omnima/core/field.h"

namespace omnima::models {

// Fields that differ from a plain decoder's.
using Changes = std::map<std::string, core::FieldValue>;

inline std::vector<Changes> families() {
  using S = std::string;
  return {{},
          {{"num_key_value_heads", std::int64_t{2}}, {"tie_word_embeddings", false}},
          {{"num_key_value_heads", std::int64_t{1}}, {"positions", S("none")}, {"mlp_bias", true}},
          {{"norm", S("layer_norm")},
           {"positions", S("learned")},
           {"activation", S("gelu_tanh")},
           {"attention_bias", true},
           {"mlp_bias", true}},
          {{"activation", S("gelu")}, {"norm", S("layer_norm")}},
          {{"qk_norm", true}, {"num_key_value_heads", std::int64_t{2}}, {"activation", S("geglu")}},
          {{"parallel_residual", true}, {"activation", S("relu2")}, {"positions", S("alibi")}},
          {{"sliding_window", std::int64_t{5}},
           {"sliding_window_pattern", std::int64_t{2}},
           {"activation", S("geglu_tanh")}},
          {{"attention_softcap", 2.0}, {"logit_softcap", 1.5}, {"positions", S("alibi")}},
          {{"attention_softcap", 2.0}, {"logit_softcap", 1.5}, {"qk_norm", true}},
          {{"positions", S("relative")},
           {"relative_buckets", std::int64_t{6}},
           {"relative_max_distance", std::int64_t{12}},
           {"num_key_value_heads", std::int64_t{2}}},
          {{"blocksparse_block_size", std::int64_t{3}},
           {"blocksparse_num_local_blocks", std::int64_t{2}},
           {"blocksparse_vert_stride", std::int64_t{3}},
           {"num_key_value_heads", std::int64_t{2}}},
          {{"blocksparse_block_size", std::int64_t{2}},
           {"blocksparse_num_local_blocks", std::int64_t{1}},
           {"blocksparse_vert_stride", std::int64_t{5}},
           {"blocksparse_homo_head_pattern", true},
           {"dense_attention_every_n_layers", std::int64_t{2}},
           {"attention_softcap", 2.0},
           {"positions", S("alibi")}},
          {{"blocksparse_block_size", std::int64_t{4}},
           {"blocksparse_num_local_blocks", std::int64_t{1}},
           {"blocksparse_vert_stride", std::int64_t{2}},
           {"positions", S("relative")},
           {"relative_buckets", std::int64_t{6}},
           {"relative_max_distance", std::int64_t{12}}},
          {{"num_experts", std::int64_t{4}}},
          {{"num_experts", std::int64_t{5}},
           {"num_experts_per_tok", std::int64_t{1}},
           {"norm_topk_prob", false},
           {"moe_intermediate_size", std::int64_t{20}},
           {"shared_expert_intermediate_size", std::int64_t{24}},
           {"decoder_sparse_step", std::int64_t{2}},
           {"activation", S("gelu")},
           {"parallel_residual", true}},
          {{"rope_scaling", S("linear")}, {"rope_factor", 2.0}},
          {{"rope_scaling", S("dynamic")}, {"rope_factor", 3.0}},
          {{"rope_scaling", S("yarn")}, {"rope_factor", 4.0}},
          {{"rope_scaling", S("llama3")}, {"rope_factor", 4.0}}};
}

}  // namespace omnima::models
