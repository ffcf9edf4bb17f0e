#include "omnima/models/calibration.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/outer.h>

#include <algorithm>

#include "omnima/ops/product.h"

namespace omnima::models {
namespace {

constexpr std::int64_t kTokensAtOnce = 512;

}  // namespace

void Moments::see(nn::Slot weight, const at::Tensor& x) {
  const std::int64_t end = weight.first + weight.count;
  const auto first = wanted_.lower_bound(weight.first);
  if (first == wanted_.end() || *first >= end) return;
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  Sum& sum = sums_[weight.first];
  sum.count = weight.count;
  sum.rows += rows.size(0);
  const at::Tensor more = ops::symmetric_product(rows.t(), rows, at::kFloat);
  sum.sum = sum.sum.defined() ? sum.sum.add_(more) : more;
  missing_.erase(missing_.lower_bound(weight.first), missing_.lower_bound(end));
  if (missing_.empty()) throw Enough();
}

at::Tensor Moments::of(std::int64_t parameter) {
  Sum* sum = find(parameter);
  if (sum == nullptr) return {};
  if (!sum->mean.defined()) sum->mean = sum->sum.div_(static_cast<double>(sum->rows));
  return sum->mean;
}

void Moments::divide(std::int64_t parameter, const at::Tensor& s) {
  if (Sum* sum = find(parameter)) sum->mean = of(parameter).div(at::outer(s, s));
}

Moments::Sum* Moments::find(std::int64_t parameter) {
  auto after = sums_.upper_bound(parameter);
  if (after == sums_.begin()) return nullptr;
  --after;
  return parameter < after->first + after->second.count ? &after->second : nullptr;
}

CalibrationText::CalibrationText(const Decoder& model, const at::Tensor& ids) : model_(model) {
  const std::int64_t rows = std::max<std::int64_t>(1, kTokensAtOnce / ids.size(1));
  for (std::int64_t row = 0; row < ids.size(0); row += rows) {
    parts_.push_back(ids.narrow(0, row, std::min(rows, ids.size(0) - row)));
    nn::Pass pass = model.begin(parts_.back(), {});
    streams_.push_back(model.embed(parts_.back(), pass).x);
  }
}

void CalibrationText::show(std::int64_t layer, Moments& moments) const {
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    moments.begin_pass();
    try {
      run(layer, i, &moments);
    } catch (const Moments::Enough&) {  // the rest of the block is not worth its time
    }
  }
}

void CalibrationText::pass_on(std::int64_t layer) {
  for (std::size_t i = 0; i < streams_.size(); ++i) streams_[i] = run(layer, i, nullptr);
}

at::Tensor CalibrationText::run(std::int64_t layer, std::size_t part,
                                nn::InputObserver* observer) const {
  nn::Pass pass = model_.begin(parts_[part], {});
  pass.observer = observer;
  nn::Stream stream = model_.run_block(layer, {streams_[part]}, pass);
  return stream.settle();
}

}  // namespace omnima::models
