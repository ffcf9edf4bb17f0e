// Chooses the variant of gemm for the active instruction-set level.
#include "omnima/kernels/cpu/gemm.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const GemmKernels<T>& gemm_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const GemmKernels<T>& gemm_table();
}
namespace avx512 {
template <class T>
const GemmKernels<T>& gemm_table();
}
namespace avx512bf16 {
template <class T>
const GemmKernels<T>& gemm_table();
}
namespace amx {
template <class T>
const GemmKernels<T>& gemm_table();
}
#endif

template <class T>
const GemmKernels<T>& gemm_kernels(Level level) {
  static const Variants<const GemmKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::gemm_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::gemm_table<T>},
      {Level::kAvx512, avx512::gemm_table<T>},
      {Level::kAvx512Bf16, avx512bf16::gemm_table<T>},
      {Level::kAmx, amx::gemm_table<T>},
#endif
  };
  return variants.at(level)();
}
template const GemmKernels<float>& gemm_kernels<float>(Level);
template const GemmKernels<bfloat16>& gemm_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
