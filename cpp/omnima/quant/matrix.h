// A matrix as it is stored: each row is a whole number of blocks of one format.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "omnima/quant/format.h"

namespace omnima::quant {

struct Matrix {
  const Format* format = nullptr;
  at::Tensor blocks;         // bytes [outputs, row_bytes()]; they may lie in a mapped file
  std::int64_t outputs = 0;  // rows
  std::int64_t inputs = 0;   // numbers of a row

  std::int64_t row_bytes() const { return inputs / format->numbers * format->bytes; }
  std::int64_t bytes() const { return outputs * row_bytes(); }
  const std::uint8_t* row(std::int64_t output) const {
    return blocks.const_data_ptr<std::uint8_t>() + output * row_bytes();
  }
};

// Of bytes on the CPU that lie row after row. Throws DataError where they do not fit the shape.
Matrix matrix_of(const Format& format, const at::Tensor& bytes, std::int64_t outputs,
                 std::int64_t inputs);
// Of a contiguous matrix of float32, float16 or bfloat16 on the CPU, whose memory it shares.
Matrix matrix_of(const at::Tensor& numbers);
// float32 [count, inputs]: the rows from `first` on.
at::Tensor dequantized_rows(const Matrix& matrix, std::int64_t first, std::int64_t count);
// Writes the numbers of those rows, on all threads.
void dequantize_rows(const Matrix& matrix, std::int64_t first, std::int64_t count, float* out);
// The same, each rounded to the nearest bfloat16.
void dequantize_rows(const Matrix& matrix, std::int64_t first, std::int64_t count,
                     kernels::bfloat16* out);

}  // namespace omnima::quant
