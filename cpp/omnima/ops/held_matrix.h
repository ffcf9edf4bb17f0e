// A matrix whose numbers are held in another form, such as blocks of a few bits, and made where a
// product reads them: never more of them than one matrix, for no longer than the product.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace omnima::ops {

class HeldMatrix {
 public:
  virtual ~HeldMatrix() = default;

  virtual std::int64_t rows() const = 0;
  virtual std::int64_t columns() const = 0;
  // Writes the rows from `first` on, as many as `out` has: contiguous float32 or bfloat16
  // [count, columns]. On all threads.
  virtual void write(std::int64_t first, const at::Tensor& out) const = 0;
  // The numbers as they lie in memory, [rows, columns], where they are of that type already; else
  // undefined.
  virtual at::Tensor as_they_lie(at::ScalarType type) const = 0;
};

// The rows first to first + count - 1 as numbers [count, columns], in memory of the calling thread
// that its next call overwrites.
at::Tensor numbers_of(const HeldMatrix& held, std::int64_t first, std::int64_t count,
                      at::ScalarType type);
at::Tensor numbers_of(const HeldMatrix& held, at::ScalarType type);
// Some rows, ids int64 [count], in memory of their own.
at::Tensor rows_of(const HeldMatrix& held, const at::Tensor& ids, at::ScalarType type);

}  // namespace omnima::ops
