#include "omnima/train/preference.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/core/labels.h"
#include "omnima/core/scope.h"
#include "omnima/train/row_workers.h"

namespace omnima::train {

using core::DataError;
using core::require;

namespace {

constexpr std::int64_t kSliceTokens = 1024;

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

// The mean loss of the chosen answer, and the log odds of both: log(p / (1 - p)) with p the
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
  return {mine + options.beta * softplus_of_minus(ratio),
          (1 + slope * slope_of_odds(mine)) / chosen.tokens,
          -slope * slope_of_odds(other) / rejected.tokens, options.beta * (other - mine)};
}

bool has_labels(const data::Batch& batch, std::int64_t row) {
  const auto first = batch.labels.begin() + row * batch.time;
  return std::any_of(first, first + batch.time,
                     [](std::int64_t label) { return label != core::kIgnoredLabel; });
}

double tokens_of(const data::Batch& batch, std::int64_t row) {
  const auto first = batch.labels.begin() + row * batch.time;
  return static_cast<double>(std::count_if(
      first, first + batch.time, [](std::int64_t label) { return label != core::kIgnoredLabel; }));
}

Answer answer(const data::Batch& batch, std::int64_t row, double loss) {
  const double reference =
      batch.reference.empty() ? 0.0 : batch.reference[static_cast<std::size_t>(row)];
  return {loss, reference, tokens_of(batch, row)};
}

}  // namespace

void PreferenceOptions::check() const {
  core::check_field({"preference",
                     std::string(""),
                     "loss of pairs of answers",
                     0,
                     0,
                     {"", "dpo", "ipo", "simpo", "orpo"}},
                    loss);
  core::check_field({"preference_beta", 0.1, "how much a pair counts", 1e-6, 1e6}, beta);
  core::check_field({"preference_margin", 0.5, "simpo: reward wanted in advance", 0, 1e6}, margin);
}

PairLoss pair_loss(const PreferenceOptions& options, const Answer& chosen, const Answer& rejected) {
  if (options.loss == "dpo") return dpo(options, chosen, rejected);
  if (options.loss == "ipo") return ipo(options, chosen, rejected);
  if (options.loss == "simpo") return simpo(options, chosen, rejected);
  return orpo(options, chosen, rejected);
}

std::int64_t pairs_of(const data::Batch& batch) {
  std::int64_t pairs = 0;
  for (std::int64_t row = 0; row + 1 < batch.rows; row += 2) pairs += has_labels(batch, row);
  return pairs;
}

void preference_pass(models::Decoder& model, const data::Batch& batch,
                     const models::Decoder::LossOptions& how, const PreferenceOptions& options,
                     double factor, bool with_gradients, PairTotals& totals) {
  require<DataError>(batch.rows % 2 == 0, "A batch of pairs has an even number of rows, not ",
                     batch.rows, ".");
  require<DataError>(!options.has_reference() || !batch.reference.empty(), "Loss ", options.loss,
                     " needs the losses by the model that the run began with.");
  const BatchTensors all = batch_tensors(batch, model.arena().weights().device());
  const c10::AutoGradMode mode(with_gradients);
  const std::int64_t step = all.ids.is_cpu()
                                ? 2 * std::max<std::int64_t>(1, kSliceTokens / (2 * batch.time))
                                : batch.rows;
  for (std::int64_t first = 0; first < batch.rows; first += step) {
    const BatchTensors rows = all.rows(first, std::min(step, batch.rows - first));
    models::Decoder::LossOptions part = how;
    part.row_scales = [&](const std::vector<double>& sums) {
      std::vector<double> scales(sums.size());
      for (std::size_t i = 0; i < sums.size(); i += 2) {
        const std::int64_t row = first + static_cast<std::int64_t>(i);
        if (!has_labels(batch, row)) continue;
        const PairLoss loss =
            pair_loss(options, answer(batch, row, sums[i]), answer(batch, row + 1, sums[i + 1]));
        totals.value += loss.value;
        totals.reward_margin += loss.reward_margin;
        totals.right += loss.reward_margin > 0;
        ++totals.pairs;
        scales[i] = factor * loss.by_chosen;
        scales[i + 1] = factor * loss.by_rejected;
      }
      return scales;
    };
    models::Decoder::Losses made;
    {
      const core::Scope scope("pass.forward");
      made = model.losses(rows.ids, rows.labels, {}, part);
    }
    if (!with_gradients) continue;
    const core::Scope scope("pass.backward");
    torch::autograd::backward(made.roots(), {});
  }
}

std::vector<double> row_losses(models::Decoder& model, const data::Batch& batch,
                               const models::Decoder::LossOptions& how) {
  const BatchTensors all = batch_tensors(batch, model.arena().weights().device());
  const c10::AutoGradMode mode(false);
  std::vector<double> found;
  const std::int64_t step = std::max<std::int64_t>(1, kSliceTokens / batch.time);
  for (std::int64_t first = 0; first < batch.rows; first += step) {
    const BatchTensors rows = all.rows(first, std::min(step, batch.rows - first));
    models::Decoder::LossOptions part = how;
    part.row_scales = [&](const std::vector<double>& sums) {
      found.insert(found.end(), sums.begin(), sums.end());
      return std::vector<double>(sums.size());
    };
    model.losses(rows.ids, rows.labels, {}, part);
  }
  return found;
}

}  // namespace omnima::train
