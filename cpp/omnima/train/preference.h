// Losses of answers that people compared or judged, from the summed losses of their tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "omnima/data/batch.h"
#include "omnima/models/decoder.h"
#include "omnima/train/row_workers.h"

namespace omnima::train {

struct PreferenceOptions {
  // "" (none) | dpo (Rafailov et al. 2023, eq. 7) | ipo (Azar et al. 2023, eq. 17, by mean log
  // probabilities) | simpo (Meng et al. 2024, eq. 6) | orpo (Hong et al. 2024, eq. 6) |
  // kto (Ethayarajh et al. 2024, eq. 8), of answers that were judged one by one | reward (Ouyang et
  // al. 2022, eq. 1), of a model with a reward head
  std::string loss;
  double beta = 0.1;
  double margin = 0.5;              // simpo: gamma
  double desirable_weight = 1.0;    // kto: of answers that people liked,
  double undesirable_weight = 1.0;  // and of those that they did not
  double center_rewards = 0.0;      // reward: keeps the sum of a pair's rewards small (Eisenstein
                                    // et al. 2023, eq. 2)

  bool none() const { return loss.empty(); }
  bool has_reference() const { return loss == "dpo" || loss == "ipo" || loss == "kto"; }
  void check() const;
};

// One answer: the sum of its tokens' losses in nats by the model, by the one that the run began
// with, and how many tokens these are. By a model with a reward head its reward is in the place of
// the loss.
struct Answer {
  double loss = 0;
  double reference = 0;
  double tokens = 0;
  double imitation = 0;  // orpo: how often the loss of each token counts by itself
};

// What a pair costs, and by how much that rises with the summed loss of each answer.
struct PairLoss {
  double value = 0;
  double by_chosen = 0;
  double by_rejected = 0;
  double reward_margin = 0;  // of the chosen answer over the other
};

PairLoss pair_loss(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected);

// The same of one answer that was judged. `drift`: how far the model is from what it was, in nats
// an answer; only what lies beyond counts as its reward.
struct JudgedLoss {
  double value = 0;
  double by_answer = 0;
  double reward = 0;
  bool right = false;  // the reward is above the drift's where the answer is good, else below
};

JudgedLoss judged_loss(const PreferenceOptions& options, const Answer& answer, bool good,
                       double drift);

struct PairTotals {
  double value = 0;
  std::int64_t pairs = 0;    // or judged answers
  std::int64_t right = 0;    // pairs whose chosen answer has the higher reward; see JudgedLoss
  double reward_margin = 0;  // of judged answers: of rewards, those of bad answers taken off

  void add(const PairTotals& other);
};

// Rows 2k and 2k + 1 of a batch are a pair (or a judged answer, and the same question with another
// one's answer); those without labels are padding.
std::int64_t pairs_of(const data::Batch& batch);

// How a pass goes over the pairs of a batch.
struct PairPass {
  models::Decoder::LossOptions how;
  Slicing slicing{};
  double factor = 1.0;  // of the gradient
  bool with_gradients = false;
};

// The losses of a batch's pairs. With gradients those of `factor` times their sum are added to the
// arena's.
PairTotals preference_pass(models::Decoder& model, const data::Batch& batch, const PairPass& pass,
                           const PreferenceOptions& options);
// The summed losses of every row.
std::vector<double> row_losses(models::Decoder& model, const data::Batch& batch,
                               const models::Decoder::LossOptions& how, Slicing slicing);

}  // namespace omnima::train
