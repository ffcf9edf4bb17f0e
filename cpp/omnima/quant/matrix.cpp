#include "omnima/quant/matrix.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "omnima/core/error.h"

namespace omnima::quant {

using core::DataError;
using core::require;

namespace {

constexpr std::int64_t kGrain = 1 << 15;  // numbers: fewer are not worth a thread

std::int64_t rows_for_a_thread(const Matrix& matrix) {
  return std::max<std::int64_t>(1, kGrain / matrix.inputs);
}

template <class T>
void write_rows(const Matrix& matrix, std::int64_t first, std::int64_t count, T* out) {
  require<DataError>(first >= 0 && count >= 0 && first + count <= matrix.outputs, "Rows ", first,
                     " to ", first + count, " of a matrix that has ", matrix.outputs, ".");
  const std::int64_t blocks = matrix.inputs / matrix.format->numbers;
  at::parallel_for(0, count, rows_for_a_thread(matrix), [&](std::int64_t begin, std::int64_t end) {
    kernels::dequantize_blocks(matrix.format->blocks(), matrix.row(first + begin),
                               (end - begin) * blocks, out + begin * matrix.inputs);
  });
}

}  // namespace

Matrix matrix_of(const Format& format, const at::Tensor& bytes, std::int64_t outputs,
                 std::int64_t inputs) {
  require<DataError>(outputs > 0 && inputs > 0 && inputs % format.numbers == 0, "A matrix of ",
                     outputs, " rows of ", inputs, " numbers does not lie in blocks of ",
                     format.name, ", which hold ", format.numbers, " numbers of a row.");
  const std::int64_t row = inputs / format.numbers * format.bytes;
  require<DataError>(bytes.is_cpu() && bytes.is_contiguous() && bytes.scalar_type() == at::kByte &&
                         bytes.numel() == outputs * row,
                     "A matrix [", outputs, ", ", inputs, "] of ", format.name, " is ",
                     outputs * row, " contiguous bytes on the CPU, but it got ", bytes.toString(),
                     " ", bytes.sizes(), ".");
  return {&format, bytes.detach().view({outputs, row}), outputs, inputs};
}

Matrix matrix_of(const at::Tensor& numbers) {
  const at::ScalarType type = numbers.scalar_type();
  const char* name = type == at::kFloat      ? "f32"
                     : type == at::kHalf     ? "f16"
                     : type == at::kBFloat16 ? "bf16"
                                             : nullptr;
  require<DataError>(name != nullptr && numbers.dim() == 2 && numbers.is_contiguous(),
                     "A matrix is a contiguous float32, float16 or bfloat16 tensor of two "
                     "dimensions, but it got ",
                     numbers.toString(), " ", numbers.sizes(), ".");
  return matrix_of(format_named(name), numbers.detach().view(at::kByte), numbers.size(0),
                   numbers.size(1));
}

at::Tensor dequantized_rows(const Matrix& matrix, std::int64_t first, std::int64_t count) {
  const at::Tensor out = at::empty({count, matrix.inputs}, at::kFloat);
  dequantize_rows(matrix, first, count, out.mutable_data_ptr<float>());
  return out;
}

void dequantize_rows(const Matrix& matrix, std::int64_t first, std::int64_t count, float* out) {
  write_rows(matrix, first, count, out);
}

void dequantize_rows(const Matrix& matrix, std::int64_t first, std::int64_t count,
                     kernels::bfloat16* out) {
  write_rows(matrix, first, count, out);
}

}  // namespace omnima::quant
