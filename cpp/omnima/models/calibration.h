// The calibration text on its way through the blocks of a decoder, and what their layers multiply.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "omnima/models/decoder.h"

namespace omnima::models {

// The second moments of what some linear layers of a block multiply with.
class Moments : public nn::InputObserver {
 public:
  // Thrown out of a pass that has shown all parameters of interest.
  struct Enough {};

  // Of these parameters, by their places.
  explicit Moments(std::set<std::int64_t> of) : wanted_(std::move(of)) {}

  void begin_pass() { missing_ = wanted_; }
  void see(nn::Slot weight, const at::Tensor& x) override;
  // Of the parameter at this place: the mean of x x^T, or undefined where none came by.
  at::Tensor of(std::int64_t parameter);
  // The inputs were divided by s.
  void divide(std::int64_t parameter, const at::Tensor& s);

 private:
  struct Sum {
    std::int64_t count = 0, rows = 0;
    at::Tensor sum, mean;
  };

  Sum* find(std::int64_t parameter);

  std::set<std::int64_t> wanted_, missing_;  // missing_: not yet seen in this pass
  std::map<std::int64_t, Sum> sums_;         // by the first parameter of a layer
};

// The text, a few rows at a time.
class CalibrationText {
 public:
  CalibrationText(const Decoder& model, const at::Tensor& ids);

  // Only looks: the text stays before the block.
  void show(std::int64_t layer, Moments& moments) const;
  void pass_on(std::int64_t layer);

 private:
  at::Tensor run(std::int64_t layer, std::size_t part, nn::InputObserver* observer) const;

  const Decoder& model_;
  std::vector<at::Tensor> parts_, streams_;  // ids; [rows, time, hidden]
};

}  // namespace omnima::models
