// Chooses the variant of norm for the active instruction-set level.
#include "omnima/kernels/cpu/norm.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const NormKernels<T>& norm_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const NormKernels<T>& norm_table();
}
namespace avx512 {
template <class T>
const NormKernels<T>& norm_table();
}
namespace avx512bf16 {
template <class T>
const NormKernels<T>& norm_table();
}
#endif

template <class T>
const NormKernels<T>& norm_kernels(Level level) {
  static const Variants<const NormKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::norm_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::norm_table<T>},
      {Level::kAvx512, avx512::norm_table<T>},
      {Level::kAvx512Bf16, avx512bf16::norm_table<T>},
#endif
  };
  return variants.at(level)();
}
template const NormKernels<float>& norm_kernels<float>(Level);
template const NormKernels<bfloat16>& norm_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
