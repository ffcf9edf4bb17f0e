// Matrices as they are stored share their memory and give their rows.
#include "omnima/quant/matrix.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "omnima/core/error.h"
#include "omnima/quant/convert.h"

namespace omnima::quant {
namespace {

TEST(Matrices, OfTensorsShareTheirMemory) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const at::Tensor numbers = at::randn({5, 7}).to(type);
    const Matrix matrix = matrix_of(numbers);
    EXPECT_EQ(matrix.row(0), numbers.const_data_ptr());
    EXPECT_EQ(matrix.row_bytes(), 7 * numbers.element_size());
    EXPECT_EQ(matrix.bytes(), static_cast<std::int64_t>(numbers.nbytes()));
    EXPECT_TRUE(at::equal(dequantized_rows(matrix, 2, 3), numbers.slice(0, 2).to(at::kFloat)));
  }
}

TEST(Matrices, OfBlocksGiveTheirRows) {
  for (const Format* format : formats()) {
    if (format->quantize == nullptr) continue;
    const std::int64_t inputs = 3 * format->numbers;
    const at::Tensor bytes = quantized(*format, at::randn({4, inputs}));
    const Matrix matrix = matrix_of(*format, bytes, 4, inputs);
    const at::Tensor all = dequantized(*format, bytes.const_data_ptr(), {4, inputs});
    EXPECT_TRUE(at::equal(dequantized_rows(matrix, 1, 2), all.slice(0, 1, 3))) << format->name;
  }
}

TEST(Matrices, ThatDoNotFitAreRefused) {
  const Format& format = format_named("q8_0");
  const at::Tensor bytes = at::zeros({68}, at::kByte);
  EXPECT_THROW(matrix_of(format, bytes, 2, 33), core::DataError);
  EXPECT_THROW(matrix_of(format, bytes, 3, 32), core::DataError);
  EXPECT_THROW(matrix_of(format, bytes.to(at::kChar), 2, 32), core::DataError);
  EXPECT_THROW(matrix_of(at::zeros({4})), core::DataError);
  EXPECT_THROW(matrix_of(at::zeros({4, 4}, at::kLong)), core::DataError);
  EXPECT_THROW(matrix_of(at::zeros({4, 4}).t().slice(0, 0, 2)), core::DataError);
  EXPECT_THROW(dequantized_rows(matrix_of(format, bytes, 2, 32), 1, 2), core::DataError);
}

}  // namespace
}  // namespace omnima::quant
