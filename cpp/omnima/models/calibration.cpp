#include "omnima/models/calibration.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "omnima/ops/product.h"

namespace omnima::models {
namespace {

constexpr std::int64_t kTokensAtOnce = 512;
// What the text is kept in between blocks, and what its moments are summed of: the rounding is far
// below what quantizing does to it.
constexpr at::ScalarType kKept = at::kBFloat16;
constexpr std::size_t kPartsAtOnce = 2;  // whose inputs are kept while matrices change places

}  // namespace

void Inputs::see(nn::Slot weight, const at::Tensor& x) {
  const std::int64_t end = weight.first + weight.count;
  const auto first = missing_.lower_bound(weight.first);
  if (first == missing_.end() || *first >= end) return;
  seen_[weight.first] = x.reshape({-1, x.size(-1)});
  missing_.erase(first, missing_.lower_bound(end));
  if (missing_.empty()) throw Enough();
}

at::Tensor Inputs::of(std::int64_t first) const {
  const auto found = seen_.find(first);
  return found == seen_.end() ? at::Tensor() : found->second;
}

void Moments::begin_pass(std::int64_t tokens, const Inputs* before) {
  missing_ = wanted_;
  tokens_ = tokens;
  before_ = before;
}

void Moments::see(nn::Slot weight, const at::Tensor& x) {
  const std::int64_t end = weight.first + weight.count;
  const auto first = wanted_.lower_bound(weight.first);
  if (first == wanted_.end() || *first >= end) return;
  const at::Tensor as_read = x.reshape({-1, x.size(-1)}), rows = as_read.to(kKept);
  Sum& sum = sums_[weight.first];
  sum.count = weight.count;
  sum.rows += rows.size(0);
  const at::Tensor more = ops::symmetric_product(rows.t(), rows, at::kFloat);
  sum.of.moments = sum.of.moments.defined() ? sum.of.moments.add_(more) : more;
  const at::Tensor was = before_ == nullptr ? at::Tensor() : before_->of(weight.first);
  sum.drifts = sum.drifts && was.defined() && was.size(0) == tokens_ && rows.size(0) == tokens_;
  if (sum.drifts) {
    if (!sum.of.drift.defined()) sum.of.drift = at::zeros_like(more);
    ops::add_product(sum.of.drift, (was - as_read).to(kKept).t(), rows);
  } else {
    sum.of.drift.reset();
  }
  missing_.erase(missing_.lower_bound(weight.first), missing_.lower_bound(end));
  if (missing_.empty()) throw Enough();
}

quant::TextMoments Moments::of(std::int64_t parameter) {
  Sum* sum = find(parameter);
  if (sum == nullptr) return {};
  if (!sum->is_mean) {
    const auto rows = static_cast<double>(sum->rows);
    sum->of.moments.div_(rows);
    if (sum->of.drift.defined()) sum->of.drift.div_(rows);
    sum->is_mean = true;
  }
  return sum->of;
}

void Moments::divide(std::int64_t parameter, const at::Tensor& s) {
  const at::Tensor both = at::outer(s, s);
  if (Sum* sum = find(parameter)) {
    sum->of = of(parameter);
    sum->of.moments = sum->of.moments.div(both);
    if (sum->of.drift.defined()) sum->of.drift = sum->of.drift.div(both);
  }
}

Moments::Sum* Moments::find(std::int64_t parameter) {
  auto after = sums_.upper_bound(parameter);
  if (after == sums_.begin()) return nullptr;
  --after;
  return parameter < after->first + after->second.count ? &after->second : nullptr;
}

void Replaced::swap() const {
  for (const auto& [matrix, kept] : pairs_) {
    auto* here = matrix.data_ptr<float>();
    std::swap_ranges(here, here + matrix.numel(), kept.data_ptr<float>());
  }
}

CalibrationText::CalibrationText(const Decoder& model, const at::Tensor& ids, bool follows_drift)
    : model_(model) {
  const std::int64_t rows = std::max<std::int64_t>(1, kTokensAtOnce / ids.size(1));
  for (std::int64_t row = 0; row < ids.size(0); row += rows) {
    parts_.push_back(ids.narrow(0, row, std::min(rows, ids.size(0) - row)));
    nn::Pass pass = model.begin(parts_.back(), {});
    streams_.push_back(model.embed(parts_.back(), pass).x.to(kKept));
  }
  if (follows_drift) true_streams_ = streams_;  // until a block is passed
}

void CalibrationText::show(std::int64_t layer, const Replaced& before, Moments& moments) const {
  for (std::size_t i = 0; i < parts_.size(); i += kPartsAtOnce) {
    const std::size_t end = std::min(parts_.size(), i + kPartsAtOnce);
    std::vector<Inputs> as_before;
    if (!true_streams_.empty()) {
      before.swap();
      for (std::size_t part = i; part < end; ++part) {
        look(layer, part, true_streams_, as_before.emplace_back(moments.wanted()));
      }
      before.swap();
    }
    for (std::size_t part = i; part < end; ++part) {
      moments.begin_pass(parts_[part].numel(), as_before.empty() ? nullptr : &as_before[part - i]);
      look(layer, part, streams_, moments);
    }
  }
}

void CalibrationText::pass_on(std::int64_t layer, const Replaced& before) {
  const auto pass = [&](Streams& streams) {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      streams[i] = run(layer, parts_[i], streams[i], nullptr);
    }
  };
  pass(streams_);
  if (true_streams_.empty()) return;
  before.swap();
  pass(true_streams_);
  before.swap();
}

void CalibrationText::look(std::int64_t layer, std::size_t part, const Streams& streams,
                           nn::InputObserver& observer) const {
  try {
    run(layer, parts_[part], streams[part], &observer);
  } catch (const Enough&) {  // the rest of the block is not worth its time
  }
}

at::Tensor CalibrationText::run(std::int64_t layer, const at::Tensor& ids, const at::Tensor& stream,
                                nn::InputObserver* observer) const {
  nn::Pass pass = model_.begin(ids, {});
  pass.observer = observer;
  return model_.run_block(layer, {stream.to(at::kFloat)}, pass).settle().to(kKept);
}

}  // namespace omnima::models
