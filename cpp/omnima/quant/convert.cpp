#include "omnima/quant/convert.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>

#include "omnima/core/error.h"
#include "omnima/quant/formats/bits.h"

namespace omnima::quant {
namespace {

constexpr std::int64_t kGrain = 1 << 14;  // numbers: fewer are not worth a thread
constexpr std::int64_t kPiece = 1 << 12;

template <class F>
void over_blocks(const Format& format, std::int64_t numbers, F f) {
  const std::int64_t blocks = numbers / format.numbers;
  at::parallel_for(0, blocks, std::max<std::int64_t>(1, kGrain / format.numbers), f);
}

}  // namespace

void require_blocks(const Format& format, at::IntArrayRef sizes) {
  core::require<core::DataError>(!sizes.empty() && sizes.back() % format.numbers == 0,
                                 "A tensor of the shape ", sizes, " does not lie in blocks of ",
                                 format.name, ", which hold ", format.numbers,
                                 " numbers of its last dimension.");
}

at::Tensor dequantized(const Format& format, const void* blocks, at::IntArrayRef sizes) {
  require_blocks(format, sizes);
  const at::Tensor out = at::empty(sizes, at::kFloat);
  const auto* from = static_cast<const std::uint8_t*>(blocks);
  float* to = out.data_ptr<float>();
  over_blocks(format, out.numel(), [&](std::int64_t begin, std::int64_t end) {
    kernels::dequantize_blocks(format.blocks(), from + begin * format.bytes, end - begin,
                               to + begin * format.numbers);
  });
  return out;
}

bool fill(const at::Tensor& parameter, const Format& format, const at::Tensor& stored) {
  core::require<core::DataError>(
      parameter.is_cpu() && parameter.is_contiguous() && parameter.scalar_type() == at::kFloat &&
          stored.is_cpu() && stored.is_contiguous() && parameter.numel() % format.numbers == 0 &&
          static_cast<std::int64_t>(stored.nbytes()) ==
              parameter.numel() / format.numbers * format.bytes,
      "A parameter of the shape ", parameter.sizes(), " is to be filled with ", stored.nbytes(),
      " bytes of ", format.name, ", which do not fit.");
  const auto* from = static_cast<const std::uint8_t*>(stored.const_data_ptr());
  float* to = parameter.mutable_data_ptr<float>();
  // Few enough that the numbers are still near when they are looked through.
  const std::int64_t piece = std::max<std::int64_t>(1, kPiece / format.numbers);
  std::atomic<bool> finite = true;
  over_blocks(format, parameter.numel(), [&](std::int64_t begin, std::int64_t end) {
    for (; begin < end; begin += piece) {
      const std::int64_t count = std::min(piece, end - begin);
      float* at = to + begin * format.numbers;
      kernels::dequantize_blocks(format.blocks(), from + begin * format.bytes, count, at);
      if (!all_finite(at, count * format.numbers)) finite = false;
    }
  });
  parameter.unsafeGetTensorImpl()->bump_version();
  return finite;
}

at::Tensor quantized(const Format& format, const at::Tensor& numbers) {
  require_blocks(format, numbers.sizes());
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
