// The decoder family: Llama, GPT-2 and what lies between, by configuration.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "omnima/models/decoder_config.h"
#include "omnima/models/rotary.h"
#include "omnima/nn/layers.h"
#include "omnima/ops/linear_cross_entropy.h"

namespace omnima::models {

class Decoder {
 public:
  // Weights are drawn from `seed`. device: "cpu" or "cuda".
  Decoder(const DecoderConfig& config, std::uint64_t seed, const std::string& device = "cpu");

  const DecoderConfig& config() const { return config_; }
  nn::Arena& arena() { return arena_; }
  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const;
  int64_t num_parameters() const { return arena_.size(); }

  // ids int64 [batch, time] -> float32 [batch, time, vocab].
  at::Tensor logits(const at::Tensor& ids);
  // Mean cross-entropy in nats over the labels that are not -100; labels are already shifted.
  // segments int32 [batch, time] or undefined: attention stays inside a row's documents.
  at::Tensor loss(const at::Tensor& ids, const at::Tensor& labels, const at::Tensor& segments);

  struct LossOptions {
    nn::Compute compute;
    double scale = 1.0;  // the sum of losses is multiplied by this
    bool training = false;
    std::uint64_t dropout_seed = 0;
    bool ids_checked = false;  // by the caller, on the host: a device need not be asked
    ops::LossTerms terms{};
  };
  at::Tensor loss_sum(const at::Tensor& ids, const at::Tensor& labels, const at::Tensor& segments,
                      const LossOptions& options);

 private:
  struct Block {
    nn::Norm input_norm, mlp_norm;
    nn::Attention attention;
    nn::Mlp mlp;
  };

  void check_ids(const at::Tensor& ids, bool values = true) const;
  ops::Positions positions(const at::Tensor& ids, const at::Tensor& segments) const;
  nn::Stream run_block(const Block& block, nn::Stream stream, int64_t time, nn::Pass& pass) const;
  at::Tensor hidden(const at::Tensor& ids, nn::Pass& pass) const;  // [batch, time, hidden]

  DecoderConfig config_;
  nn::Arena arena_;
  nn::Slot tokens_, learned_positions_, relative_bias_, head_;
  std::vector<Block> blocks_;
  nn::Norm final_norm_;
  RotaryTables rotary_;
  at::Tensor buckets_;  // of distances, with relative positions
};

}  // namespace omnima::models
