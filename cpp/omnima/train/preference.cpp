#include "omnima/train/preference.h"

#include <ATen/ops/full.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/core/labels.h"
#include "omnima/core/mix.h"
#include "omnima/core/scope.h"

namespace omnima::train {

using core::DataError;
using core::require;

namespace {

// -log(sigmoid(x)) and its slope.
double softplus_of_minus(double x) {
  return std::max(-x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}
double slope_of_softplus(double x) {
  return x > 0 ? -std::exp(-x) / (1 + std::exp(-x)) : -1 / (1 + std::exp(x));
}

PairLoss dpo(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected) {
  // Losses are negative log probabilities.
  const double delta = (chosen.reference - chosen.loss) - (rejected.reference - rejected.loss);
  const double slope = options.beta * slope_of_softplus(options.beta * delta);
  return {softplus_of_minus(options.beta * delta), -slope, slope, options.beta * delta};
}

PairLoss ipo(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected) {
  const double mine = (chosen.reference - chosen.loss) / chosen.tokens;
  const double other = (rejected.reference - rejected.loss) / rejected.tokens;
  const double off = mine - other - 1 / (2 * options.beta);
  const double delta = (chosen.reference - chosen.loss) - (rejected.reference - rejected.loss);
  return {off * off, -2 * off / chosen.tokens, 2 * off / rejected.tokens, options.beta * delta};
}

PairLoss simpo(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected) {
  const double delta = rejected.loss / rejected.tokens - chosen.loss / chosen.tokens;
  const double at = options.beta * delta - options.margin;
  const double slope = options.beta * slope_of_softplus(at);
  return {softplus_of_minus(at), -slope / chosen.tokens, slope / rejected.tokens,
          options.beta * delta};
}

PairLoss reward(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected) {
  const double delta = chosen.loss - rejected.loss, sum = chosen.loss + rejected.loss;
  const double slope = slope_of_softplus(delta), pull = 2 * options.center_rewards * sum;
  return {softplus_of_minus(delta) + options.center_rewards * sum * sum, slope + pull,
          -slope + pull, delta};
}

// The losses of the chosen answer's tokens, and the log odds of both: log(p / (1 - p)) with p the
// exponential of the mean log probability.
PairLoss orpo(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected) {
  const auto log_odds = [](double mean_loss) {
    return -mean_loss - std::log(-std::expm1(-mean_loss));
  };
  // Of the log odds by the mean loss.
  const auto slope_of_odds = [](double mean_loss) { return 1 / std::expm1(-mean_loss); };
  const double mine = std::max(chosen.loss / chosen.tokens, 1e-12);
  const double other = std::max(rejected.loss / rejected.tokens, 1e-12);
  const double ratio = log_odds(mine) - log_odds(other);
  const double slope = options.beta * slope_of_softplus(ratio);
  return {chosen.imitation * chosen.loss + options.beta * softplus_of_minus(ratio),
          chosen.imitation + slope * slope_of_odds(mine) / chosen.tokens,
          -slope * slope_of_odds(other) / rejected.tokens, options.beta * (other - mine)};
}

std::int64_t labels_of(const data::Batch& batch, std::int64_t row) {
  const auto first = batch.labels.begin() + row * batch.time;
  return batch.time - std::count(first, first + batch.time, core::kIgnoredLabel);
}

// Of one row; `imitation` see there.
Answer answer(const data::Batch& batch, std::int64_t row, double loss, double imitation = 0) {
  const double reference =
      batch.reference.empty() ? 0.0 : batch.reference[static_cast<std::size_t>(row)];
  return {loss, reference, static_cast<double>(labels_of(batch, row)), imitation};
}

// orpo imitates the chosen answers and what was asked: these are the labels of the latter, and how
// often each token of both counts so that a pair costs their mean.
struct Imitation {
  at::Tensor asked{};
  double each = 0;
};

Imitation imitation(const data::Batch& batch) {
  Imitation made{at::full({batch.rows, batch.time}, core::kIgnoredLabel, at::kLong)};
  auto* label = made.asked.mutable_data_ptr<std::int64_t>();
  std::int64_t tokens = 0;
  for (std::int64_t row = 0; row < batch.rows; row += 2) {
    const std::int64_t answered = labels_of(batch, row);
    if (answered == 0) continue;
    std::int64_t at = row * batch.time;
    for (; batch.labels[at] == core::kIgnoredLabel; ++at, ++tokens)
      label[at] = batch.input_ids[at + 1];
    tokens += answered;
  }
  made.each = static_cast<double>(pairs_of(batch)) / static_cast<double>(tokens);
  return made;
}

// Every second row, from `first` on.
BatchTensors half(const BatchTensors& all, std::int64_t first) {
  const auto cut = [&](const at::Tensor& x) {
    return x.slice(0, first, std::nullopt, 2).contiguous();
  };
  return {cut(all.ids), cut(all.labels), {}};
}

// Goes over rows in slices; `scales` says of slices of rows and their summed losses how often each
// counts, in the worker's totals.
using Scales =
    std::function<std::vector<double>(const Slice&, const std::vector<double>&, PairTotals&)>;

PairTotals over_rows(models::Decoder& model, const BatchTensors& rows, const PairPass& pass,
                     const Scales& scales, const Imitation& imitated = {}) {
  std::vector<PairTotals> totals(pass.slicing.workers);
  sum_over_rows(rows, pass.slicing, pass.with_gradients, [&](const Slice& slice) {
    PairTotals& mine = totals[slice.worker];
    models::Decoder::LossOptions part = pass.how;
    part.compute.worker = slice.worker;
    part.dropout_seed = core::mix(pass.how.dropout_seed, slice.first);
    part.row_scales = [&](const std::vector<double>& sums) { return scales(slice, sums, mine); };
    if (imitated.asked.defined()) {
      part.scale = pass.factor * imitated.each;
      part.other_labels =
          imitated.asked.narrow(0, slice.first, slice.rows.ids.size(0)).to(slice.rows.ids.device());
    }
    models::Decoder::Losses made;
    {
      const core::Scope scope("pass.forward");
      made = model.losses(slice.rows.ids, slice.rows.labels, {}, part);
    }
    mine.value += made.others / pass.factor;
    if (pass.with_gradients) {
      const core::Scope scope("pass.backward");
      torch::autograd::backward(made.roots(), {});
    }
    return 0.0;
  });
  PairTotals all;
  for (const PairTotals& each : totals) all.add(each);
  return all;
}

PairTotals pass_over_pairs(models::Decoder& model, const data::Batch& batch, PairPass pass,
                           const PreferenceOptions& options, const BatchTensors& rows) {
  const Imitation imitated = options.loss == "orpo" ? imitation(batch) : Imitation{};
  pass.slicing.together = 2;
  const Scales scales = [&](const Slice& slice, const std::vector<double>& sums,
                            PairTotals& totals) {
    std::vector<double> counts(sums.size());
    for (std::size_t i = 0; i < sums.size(); i += 2) {
      const std::int64_t row = slice.first + static_cast<std::int64_t>(i);
      if (labels_of(batch, row) == 0) continue;
      const PairLoss loss = pair_loss(options, answer(batch, row, sums[i], imitated.each),
                                      answer(batch, row + 1, sums[i + 1]));
      totals.add({loss.value, 1, loss.reward_margin > 0, loss.reward_margin});
      counts[i] = pass.factor * loss.by_chosen;
      counts[i + 1] = pass.factor * loss.by_rejected;
    }
    return counts;
  };
  return over_rows(model, rows, pass, scales, imitated);
}

// How far the model went from the one that the run began with: what it says of answers to other
// questions, in the mean over the batch. At least 0, as a divergence is (section 4.1).
double drift_of(models::Decoder& model, const data::Batch& batch, PairPass pass,
                const BatchTensors& rows) {
  pass.with_gradients = false;
  pass.how.training = false;
  pass.how.compute.checkpointed = 0;
  double sum = 0;
  std::vector<double> of_rows(batch.rows / 2);
  over_rows(model, half(rows, 1), pass,
            [&](const Slice& slice, const std::vector<double>& sums, PairTotals&) {
              std::copy(sums.begin(), sums.end(), of_rows.begin() + slice.first);
              return std::vector<double>(sums.size());
            });
  for (std::size_t i = 0; i < of_rows.size(); ++i) {
    const auto row = static_cast<std::int64_t>(2 * i + 1);
    if (labels_of(batch, row) > 0) sum += batch.reference[2 * i + 1] - of_rows[i];
  }
  return std::max(0.0, sum / static_cast<double>(pairs_of(batch)));
}

PairTotals pass_over_judged(models::Decoder& model, const data::Batch& batch, const PairPass& pass,
                            const PreferenceOptions& options, const BatchTensors& rows) {
  require<DataError>(!batch.good.empty(), "Loss ", options.loss,
                     " needs answers that people judged, one by one.");
  const double drift = drift_of(model, batch, pass, rows);
  const Scales scales = [&](const Slice& slice, const std::vector<double>& sums,
                            PairTotals& totals) {
    std::vector<double> counts(sums.size());
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const std::int64_t row = 2 * (slice.first + static_cast<std::int64_t>(i));
      if (labels_of(batch, row) == 0) continue;
      const bool good = batch.good[static_cast<std::size_t>(row)] != 0;
      const JudgedLoss loss = judged_loss(options, answer(batch, row, sums[i]), good, drift);
      totals.add({loss.value, 1, loss.right, good ? loss.reward : -loss.reward});
      counts[i] = pass.factor * loss.by_answer;
    }
    return counts;
  };
  return over_rows(model, half(rows, 0), pass, scales);
}

}  // namespace

void PreferenceOptions::check() const {
  core::check_field({"preference",
                     std::string(""),
                     "loss of pairs of answers",
                     0,
                     0,
                     {"", "dpo", "ipo", "simpo", "orpo", "kto", "reward"}},
                    loss);
  core::check_field({"preference_beta", 0.1, "how much a pair counts", 1e-6, 1e6}, beta);
  core::check_field({"preference_margin", 0.5, "simpo: reward wanted in advance", 0, 1e6}, margin);
  core::check_field({"desirable_weight", 1.0, "kto: of good answers", 0, 1e6}, desirable_weight);
  core::check_field({"center_rewards", 0.0, "reward: weight of a pair's squared sum", 0, 1e6},
                    center_rewards);
  core::check_field({"undesirable_weight", 1.0, "kto: of bad answers", 0, 1e6}, undesirable_weight);
}

PairLoss pair_loss(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected) {
  if (options.loss == "dpo") return dpo(options, chosen, rejected);
  if (options.loss == "ipo") return ipo(options, chosen, rejected);
  if (options.loss == "simpo") return simpo(options, chosen, rejected);
  if (options.loss == "reward") return reward(options, chosen, rejected);
  return orpo(options, chosen, rejected);
}

JudgedLoss judged_loss(const PreferenceOptions& options, const Answer& answer, bool good,
                       double drift) {
  const double ratio = answer.reference - answer.loss;  // losses are negative log probabilities
  const double sign = good ? 1 : -1;
  const double weight = good ? options.desirable_weight : options.undesirable_weight;
  const double at = sign * options.beta * (ratio - drift);
  const double missed = -slope_of_softplus(at);  // 1 - sigmoid(at)
  return {weight * missed, weight * sign * options.beta * missed * (1 - missed),
          options.beta * ratio, at > 0};
}

void PairTotals::add(const PairTotals& other) {
  value += other.value;
  pairs += other.pairs;
  right += other.right;
  reward_margin += other.reward_margin;
}

std::int64_t pairs_of(const data::Batch& batch) {
  std::int64_t pairs = 0;
  for (std::int64_t row = 0; row + 1 < batch.rows; row += 2) pairs += labels_of(batch, row) > 0;
  return pairs;
}

PairTotals preference_pass(models::Decoder& model, const data::Batch& batch, const PairPass& pass,
                           const PreferenceOptions& options) {
  require<DataError>(batch.rows % 2 == 0, "A batch of pairs has an even number of rows, not ",
                     batch.rows, ".");
  require<core::ConfigError>((options.loss == "reward") == model.config().reward_head, "Loss ",
                             options.loss,
                             model.config().reward_head ? " is that of answers, but this model has"
                                                        : " is that of a model with",
                             " a reward head.");
  require<DataError>(!options.has_reference() || !batch.reference.empty(), "Loss ", options.loss,
                     " needs the losses by the model that the run began with.");
  const BatchTensors rows = batch_tensors(batch, model.arena().weights().device());
  return options.loss == "kto" ? pass_over_judged(model, batch, pass, options, rows)
                               : pass_over_pairs(model, batch, pass, options, rows);
}

std::vector<double> row_losses(models::Decoder& model, const data::Batch& batch,
                               const models::Decoder::LossOptions& how, Slicing slicing) {
  const BatchTensors rows = batch_tensors(batch, model.arena().weights().device());
  std::vector<double> found(batch.rows);
  over_rows(model, rows, {how, slicing},
            [&](const Slice& slice, const std::vector<double>& sums, PairTotals&) {
              std::copy(sums.begin(), sums.end(), found.begin() + slice.first);
              return std::vector<double>(sums.size());
            });
  return found;
}

}  // namespace omnima::train
