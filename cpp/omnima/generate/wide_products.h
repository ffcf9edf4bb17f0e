// Products of many rows with weights, both in float32 or both in bfloat16, summed in float32: how a
// prompt is read. Each thread takes columns of its own from the weights as they are stored to their
// sums. A row's numbers do not depend on the other rows.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "omnima/core/buffer.h"
#include "omnima/generate/team.h"
#include "omnima/generate/weights.h"
#include "omnima/kernels/cpu/gemm.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::generate {

// Where a product goes: rows `stride` apart.
struct Output {
  const Linear* linear;
  float* y;
  std::int64_t stride;
  bool add = false;  // to what is there
};

// T: float or kernels::bfloat16.
template <class T>
class WideProducts {
 public:
  explicit WideProducts(Team& team, kernels::Level level = kernels::active_level())
      : team_(team), table_(kernels::gemm_kernels<T>(level)) {}

  // Room for rows of `width` numbers, which are written next: by put(), or at row().
  void begin(std::int64_t rows, std::int64_t width);
  T* row(std::int64_t index) { return rows_of_x_ + index * stride_; }
  std::int64_t stride() const { return stride_; }  // from row to row
  // Takes a row, rounded where T is bfloat16. Threads may put different rows at once.
  void put(std::int64_t index, const float* x);
  // y = rows weight^T + bias of each output, or y += that.
  void run(std::span<const Output> outputs);
  // make(x, count, y) makes y [count] of x, a row's numbers of the gate and then those of up, which
  // it may overwrite.
  using Gate = std::function<void(float* x, std::int64_t count, T* y)>;
  // The rows of `made` = what is made of gate and up: their columns never leave the second cache.
  void run_gated(const Linear& gate, const Linear& up, const Gate& make, WideProducts& made);

 private:
  struct Columns {  // of one output, with their sums [rows, count] `stride` apart
    const Linear& linear;
    std::int64_t first, count;
    float* y;
    std::int64_t stride;
    bool add;
  };

  void pack_rows();
  void multiply(const Columns& columns, int thread);
  kernels::MatrixView<T> weights_of(const Columns& columns, char* memory) const;
  kernels::GemmStrip strip(std::int64_t row, std::int64_t depth_begin, std::int64_t depth) const;
  std::int64_t panels_of(std::int64_t outputs) const;
  std::int64_t panels_at_once() const;
  std::int64_t thread_bytes() const;

  Team& team_;
  const kernels::GemmKernels<T>& table_;
  std::int64_t count_ = 0, width_ = 0, stride_ = 0;
  std::int64_t depth_ = 0;  // of a block
  T* rows_of_x_ = nullptr;
  const char* packed_rows_ = nullptr;  // where the kernel does not take rows as they are
  core::Buffer x_, packed_x_, of_threads_, gated_;
};

using HalfProducts = WideProducts<kernels::bfloat16>;
using FloatProducts = WideProducts<float>;

}  // namespace omnima::generate
