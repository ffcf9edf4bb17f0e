// The calibration text on its way through the blocks of a decoder, and what their layers multiply.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "omnima/models/decoder.h"
#include "omnima/quant/methods/method.h"

namespace omnima::models {

// Thrown out of a pass that has shown all layers of interest.
struct Enough {};

// What some linear layers multiply in one pass, by the first parameter of each.
class Inputs : public nn::InputObserver {
 public:
  explicit Inputs(const std::set<std::int64_t>& of) : missing_(of) {}
  void see(nn::Slot weight, const at::Tensor& x) override;
  // [tokens, inputs]; undefined where the layer was not reached.
  at::Tensor of(std::int64_t first) const;

 private:
  std::set<std::int64_t> missing_;
  std::map<std::int64_t, at::Tensor> seen_;
};

// The second moments of what some linear layers of a block multiply with.
class Moments : public nn::InputObserver {
 public:
  // Of these parameters, by their places.
  explicit Moments(std::set<std::int64_t> of) : wanted_(std::move(of)) {}

  const std::set<std::int64_t>& wanted() const { return wanted_; }
  // A pass over so many tokens. before: what the same layers multiplied with before anything was
  // quantized; null: the same. Layers that do not read every token, as experts, have no drift: they
  // may have read others.
  void begin_pass(std::int64_t tokens = 0, const Inputs* before = nullptr);
  void see(nn::Slot weight, const at::Tensor& x) override;
  // Of the parameter at this place, or undefined where none came by.
  quant::TextMoments of(std::int64_t parameter);
  // The inputs were divided by s.
  void divide(std::int64_t parameter, const at::Tensor& s);

 private:
  struct Sum {
    std::int64_t count = 0, rows = 0;
    bool is_mean = false, drifts = true;
    quant::TextMoments of;
  };

  Sum* find(std::int64_t parameter);

  std::set<std::int64_t> wanted_, missing_;  // missing_: not yet seen in this pass
  std::int64_t tokens_ = 0;                  // of this pass
  const Inputs* before_ = nullptr;
  std::map<std::int64_t, Sum> sums_;  // by the first parameter of a layer
};

// Matrices as they were, to be put back for a while.
class Replaced {
 public:
  void keep(const at::Tensor& matrix) { pairs_.emplace_back(matrix, matrix.clone()); }
  void swap() const;  // of what stands in the model and what is kept

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs_;
};

// The text, a few rows at a time, as the blocks pass it on: as they are by now, and, for a method
// that follows the drift, as they were.
class CalibrationText {
 public:
  CalibrationText(const Decoder& model, const at::Tensor& ids, bool follows_drift);

  // Only looks: the text stays before the block, of which the matrices in `before` are quantized.
  void show(std::int64_t layer, const Replaced& before, Moments& moments) const;
  void pass_on(std::int64_t layer, const Replaced& before);

 private:
  using Streams = std::vector<at::Tensor>;

  at::Tensor run(std::int64_t layer, const at::Tensor& ids, const at::Tensor& stream,
                 nn::InputObserver* observer) const;
  void look(std::int64_t layer, std::size_t part, const Streams& streams,
            nn::InputObserver& observer) const;

  const Decoder& model_;
  std::vector<at::Tensor> parts_;  // ids
  Streams streams_,
      true_streams_;  // bfloat16 [rows, time, hidden]; none where no drift is followed
};

}  // namespace omnima::models
