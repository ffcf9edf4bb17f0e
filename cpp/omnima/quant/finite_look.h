// Looks for NaN and infinity in matrices as they are stored, beside what else is to be done.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "omnima/quant/matrix.h"

namespace omnima::quant {

class FiniteLook {
 public:
  // Begins in a thread of its own; what lies in a mapped file comes into memory by this.
  explicit FiniteLook(std::vector<Matrix> matrices);
  ~FiniteLook();
  FiniteLook(const FiniteLook&) = delete;
  FiniteLook& operator=(const FiniteLook&) = delete;

  // Helps with what is left, and says which of the matrices hold such numbers, in order.
  std::vector<std::size_t> found();

 private:
  // Some rows of a matrix.
  struct Piece {
    std::size_t matrix;
    std::int64_t first, count;
  };

  void look();

  std::vector<Matrix> matrices_;
  std::vector<Piece> pieces_;
  std::vector<std::atomic<bool>> damaged_;  // of the matrices
  std::atomic<std::size_t> next_{0};        // first piece that no thread has taken
  std::thread thread_;
};

}  // namespace omnima::quant
