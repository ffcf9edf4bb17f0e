// A matrix of the arena that is held as the blocks of number formats: one stored matrix, or several
// one below the other.
#pragma once

#include <vector>

#include "omnima/ops/held_matrix.h"
#include "omnima/quant/matrix.h"

namespace omnima::nn {

class HeldBlocks : public ops::HeldMatrix {
 public:
  // All have the same number of inputs.
  explicit HeldBlocks(std::vector<quant::Matrix> parts);

  std::int64_t rows() const override { return rows_; }
  std::int64_t columns() const override { return parts_.front().inputs; }
  void write(std::int64_t first, const at::Tensor& out) const override;
  at::Tensor as_they_lie(at::ScalarType type) const override;

 private:
  std::vector<quant::Matrix> parts_;
  std::int64_t rows_ = 0;
};

}  // namespace omnima::nn
