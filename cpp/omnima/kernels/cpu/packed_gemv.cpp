// The variants of packed_gemv.
#include "omnima/kernels/cpu/packed_gemv.h"

namespace omnima::kernels {

PackedKernels packed_kernels_generic();
#ifdef OMNIMA_X86
PackedKernels packed_kernels_avx2();
PackedKernels packed_kernels_avx512vnni();
PackedKernels packed_kernels_amx();
#endif

namespace {

const PackedKernels& kernels_of(Level level) {
  using Make = PackedKernels (*)();
  static const Variants<Make> table{
      {Level::kGeneric, packed_kernels_generic},
#ifdef OMNIMA_X86
      {Level::kAvx2, packed_kernels_avx2},
      {Level::kAvx512Vnni, packed_kernels_avx512vnni},
      {Level::kAmx, packed_kernels_amx},
#endif
  };
  static const auto made = [] {
    std::array<PackedKernels, kLevels> all;
    for (std::size_t i = 0; i < kLevels; ++i) all[i] = table.at(static_cast<Level>(i))();
    return all;
  }();
  return made[static_cast<std::size_t>(level)];
}

}  // namespace

void quantize_rows(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t inputs,
                   const ByteRows& out, Level level) {
  kernels_of(level).quantize(x, x_stride, rows, inputs, out);
}

void packed_gemv(const PackedGemv& product, std::int64_t begin, std::int64_t end, Level level) {
  kernels_of(level).gemv(product, begin, end);
}

}  // namespace omnima::kernels
