// The decoder family: Llama, GPT-2 and what lies between, by configuration.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "omnima/models/decoder_config.h"
#include "omnima/models/prediction_heads.h"
#include "omnima/models/rotary.h"
#include "omnima/models/virtual_layout.h"
#include "omnima/nn/adapters/adapters.h"
#include "omnima/nn/moe.h"
#include "omnima/ops/linear_cross_entropy.h"
#include "omnima/ops/linear_divergence.h"

namespace omnima::models {

class Decoder {
 public:
  // Weights are drawn from `seed`; without one they are to be overwritten before any use. device:
  // "cpu" or "cuda". The matrices that `held` names are held in blocks of these formats (on the
  // CPU), which hold() brings: linear layers, embedding and head, but for experts. They do not
  // learn.
  Decoder(const DecoderConfig& config, std::optional<std::uint64_t> seed,
          const std::string& device = "cpu", const std::map<std::string, std::string>& held = {});

  void hold(const std::string& name, const at::Tensor& blocks);
  struct Held {
    std::string name, format;
    at::Tensor blocks;
  };
  std::vector<Held> held() const;

  const DecoderConfig& config() const { return config_; }
  nn::Arena& arena() { return arena_; }
  const nn::Arena& arena() const { return arena_; }
  // Those that stand at its linear layers. While there are any, its own weights rest.
  nn::Adapters& adapters() { return adapters_; }
  const nn::Adapters& adapters() const { return adapters_; }
  // But for those that are held in blocks.
  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const;
  int64_t num_parameters() const { return arena_.numbers(); }

  // ids int64 [batch, time] -> float32 [batch, time, vocab].
  // With adapters the compute's `adapted` says whether they are prepared.
  at::Tensor logits(const at::Tensor& ids, const nn::Compute& compute = {});
  // What the tokens take from which: float32 [layers, batch, heads, time, time]. The virtual tokens
  // of an adapter in use stand in front.
  at::Tensor attention(const at::Tensor& ids);
  // With a reward head: how good it finds a text that ends at each token, float32 [batch, time].
  at::Tensor rewards(const at::Tensor& ids, const nn::Compute& compute = {});
  // Mean cross-entropy in nats over the labels that are not -100; labels are already shifted.
  // segments int32 [batch, time] or undefined: attention stays inside a row's documents.
  // as_trained: with the routers' losses and all that only training has (what is left out at
  // random is that of the seed 0).
  at::Tensor loss(const at::Tensor& ids, const at::Tensor& labels, const at::Tensor& segments,
                  bool as_trained = false);

  // Another model of the same vocabulary, and how far this one may be from what it says.
  struct Teaching {
    Decoder* teacher;
    nn::Compute compute;
    ops::Divergence divergence;
  };

  struct LossOptions {
    nn::Compute compute;
    double scale = 1.0;  // the sum of losses is multiplied by this
    bool training = false;
    std::uint64_t dropout_seed = 0;
    bool ids_checked = false;  // by the caller, on the host: a device need not be asked
    ops::LossTerms terms{};
    double prediction_weight = 0.0;  // of the mean loss of the prediction heads
    // In the place of `scale`: how often the summed loss of each row counts, by these sums. Without
    // label smoothing and prediction heads. Of a model with a reward head a row has no loss, but
    // the sum of the rewards at the places that have a label.
    std::function<std::vector<double>(const std::vector<double>&)> row_scales{};
    // Beside row_scales: labels of other places, whose losses count `scale` times each.
    at::Tensor other_labels{};
    // In the place of the next tokens' losses: the divergence from a teacher, at the same places.
    std::optional<Teaching> teaching{};
  };
  struct Losses {
    // float32 scalar: the sum of the next tokens' losses, scaled. Its gradient is also that of the
    // prediction heads.
    at::Tensor words;
    // In training with experts also what the routers' losses, weighted by their coefficients, add
    // for these tokens, and their means over the routers: float32 [2], load balance and z.
    at::Tensor routers{}, of_routers{};
    double others = 0;  // of `words`: what LossOptions::other_labels add
    double share = 0;   // of these tokens among those that the scale stands for
    // The scalars to differentiate: none where all parameters are frozen.
    std::vector<at::Tensor> roots() const;
  };
  Losses losses(const at::Tensor& ids, const at::Tensor& labels, const at::Tensor& segments,
                const LossOptions& options);
  // The mean loss of each prediction head over the labels that it has: float32 [heads].
  at::Tensor prediction_losses(const at::Tensor& ids, const at::Tensor& labels,
                               const at::Tensor& segments);

  // Refuses ids that are none of the model, or more than its context holds.
  void check_ids(const at::Tensor& ids, bool values = true) const;
  // For those that look into the blocks one by one: a pass over these ids, with the tables of
  // positions that its layers read,
  nn::Pass begin(const at::Tensor& ids, const at::Tensor& segments,
                 const nn::Compute& compute = {}) const;
  // the stream that enters the first block, and what block `layer` makes of one.
  nn::Stream embed(const at::Tensor& ids, nn::Pass& pass) const;
  nn::Stream run_block(std::int64_t layer, nn::Stream stream, nn::Pass& pass) const;

 private:
  struct Block {
    nn::Norm input_norm, mlp_norm;                    // before attention and mlp,
    nn::Norm attention_output_norm, mlp_output_norm;  // and after them, where there are any
    nn::Attention attention;
    nn::Mlp mlp;
    std::optional<nn::Moe> moe{};  // in the mlp's place
  };

  void hold_in(const std::map<std::string, std::string>& formats);
  ops::Positions positions(const at::Tensor& ids, const at::Tensor& segments) const;
  // What the heads read of each token, [batch, time, hidden], and the pass that made it.
  std::pair<at::Tensor, nn::Pass> read(const at::Tensor& ids, const nn::Compute& compute) const;
  // The rows with the virtual tokens of the adapter in use, or as they are.
  VirtualLayout laid(const at::Tensor& ids, const at::Tensor& labels,
                     const at::Tensor& segments) const;
  // The same places with the tables of layers with a window.
  ops::Positions local(ops::Positions positions) const;
  // x [batch, time, hidden] before the last norm, and the routers' losses.
  nn::Stream trunk(const at::Tensor& ids, nn::Pass& pass) const;
  // Brings what adapters make of their parameters up to date, where the caller has not.
  void prepare_adapters(const nn::Compute& compute);
  void require_words() const;  // and no reward head in their place
  // That of the adapter in use, or the model's own.
  ops::Weight reward_head(const nn::Pass& pass) const;
  // The summed loss of the stream before the last norm.
  at::Tensor loss_of(const at::Tensor& stream, const at::Tensor& labels, const nn::Pass& pass,
                     double scale, ops::LossTerms terms) const;
  // The summed divergence of what it says from what a teacher says.
  at::Tensor divergence_of(const at::Tensor& stream, const at::Tensor& laid_labels,
                           const at::Tensor& ids, const at::Tensor& labels,
                           const at::Tensor& segments, const nn::Pass& pass,
                           const LossOptions& options) const;
  // The same with a scale for each row, see LossOptions::row_scales.
  Losses scaled_loss_of(const at::Tensor& stream, const at::Tensor& labels, const nn::Pass& pass,
                        const LossOptions& options) const;

  DecoderConfig config_;
  nn::Arena arena_;
  nn::Adapters adapters_;
  nn::Slot tokens_, learned_positions_, relative_bias_, head_, reward_;
  std::vector<Block> blocks_;
  nn::Norm final_norm_;
  PredictionHeads prediction_heads_;
  RotaryTables rotary_, local_rotary_;
  at::Tensor buckets_;  // of distances, with relative positions
};

}  // namespace omnima::models
