// Losses of pairs of answers of which people preferred one, from the summed losses of both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "omnima/data/batch.h"
#include "omnima/models/decoder.h"

namespace omnima::train {

struct PreferenceOptions {
  // "" (none) | dpo (Rafailov et al. 2023, eq. 7) | ipo (Azar et al. 2023, eq. 17, by mean log
  // probabilities) | simpo (Meng et al. 2024, eq. 6) | orpo (Hong et al. 2024, eq. 6)
  std::string loss;
  double beta = 0.1;
  double margin = 0.5;  // simpo: gamma

  bool none() const { return loss.empty(); }
  bool has_reference() const { return loss == "dpo" || loss == "ipo"; }
  void check() const;
};

// One answer: the sum of its tokens' losses in nats by the model, by the one that the run began
// with, and how many tokens these are.
struct Answer {
  double loss = 0;
  double reference = 0;
  double tokens = 0;
};

// What a pair costs, and by how much that rises with the summed loss of each answer.
struct PairLoss {
  double value = 0;
  double by_chosen = 0;
  double by_rejected = 0;
  double reward_margin = 0;  // of the chosen answer over the other
};

PairLoss pair_loss(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected);

struct PairTotals {
  double value = 0;
  std::int64_t pairs = 0;
  std::int64_t right = 0;  // pairs whose chosen answer has the higher reward
  double reward_margin = 0;
};

// Rows 2k and 2k + 1 of a batch are a pair; those without labels are padding.
std::int64_t pairs_of(const data::Batch& batch);
// The losses of a batch's pairs, added to the totals. With gradients those of `factor` times their
// sum are added to the arena's.
void preference_pass(models::Decoder& model, const data::Batch& batch,
                     const models::Decoder::LossOptions& how, const PreferenceOptions& options,
                     double factor, bool with_gradients, PairTotals& totals);
// The summed losses of every row.
std::vector<double> row_losses(models::Decoder& model, const data::Batch& batch,
                               const models::Decoder::LossOptions& how);

}  // namespace omnima::train
