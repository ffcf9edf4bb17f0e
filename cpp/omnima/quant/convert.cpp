// Whole tensors, on all threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "omnima/core/error.h"
#include "omnima/quant/format.h"

namespace omnima::quant {
namespace {

constexpr std::int64_t kGrain = 1 << 14;  // numbers: fewer are not worth a thread

template <class F>
void over_blocks(const Format& format, std::int64_t numbers, F f) {
  const std::int64_t blocks = numbers / format.numbers;
  at::parallel_for(0, blocks, std::max<std::int64_t>(1, kGrain / format.numbers), f);
}

void check(const Format& format, at::IntArrayRef sizes) {
  core::require<core::DataError>(!sizes.empty() && sizes.back() % format.numbers == 0,
                                 "A tensor of the shape ", sizes, " does not lie in blocks of ",
                                 format.name, ", which hold ", format.numbers,
                                 " numbers of its last dimension.");
}

}  // namespace

at::Tensor dequantized(const Format& format, const void* blocks, at::IntArrayRef sizes) {
  check(format, sizes);
  const at::Tensor out = at::empty(sizes, at::kFloat);
  const auto* from = static_cast<const std::uint8_t*>(blocks);
  float* to = out.data_ptr<float>();
  over_blocks(format, out.numel(), [&](std::int64_t begin, std::int64_t end) {
    format.dequantize(from + begin * format.bytes, end - begin, to + begin * format.numbers);
  });
  return out;
}

at::Tensor quantized(const Format& format, const at::Tensor& numbers) {
  check(format, numbers.sizes());
  core::require<core::DataError>(format.quantize != nullptr, "Omnima reads ", format.name,
                                 " but does not write it.");
  const at::Tensor given = numbers.detach().to(at::kCPU, at::kFloat).contiguous();
  const std::int64_t bytes = given.numel() / format.numbers * format.bytes;
  const at::Tensor out = at::empty({bytes}, at::kByte);
  const float* from = given.const_data_ptr<float>();
  auto* to = out.data_ptr<std::uint8_t>();
  over_blocks(format, given.numel(), [&](std::int64_t begin, std::int64_t end) {
    format.quantize(from + begin * format.numbers, end - begin, to + begin * format.bytes);
  });
  return out;
}

}  // namespace omnima::quant
