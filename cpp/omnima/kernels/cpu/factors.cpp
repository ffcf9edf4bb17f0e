// Chooses the variant of the factors of columns for the active instruction-set level.
#include "omnima/kernels/cpu/factors.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const FactorKernels<T>& factor_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const FactorKernels<T>& factor_table();
}
namespace avx512 {
template <class T>
const FactorKernels<T>& factor_table();
}
#endif

template <class T>
const FactorKernels<T>& factor_kernels(Level level) {
  static const Variants<const FactorKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::factor_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::factor_table<T>},
      {Level::kAvx512, avx512::factor_table<T>},
#endif
  };
  return variants.at(level)();
}
template const FactorKernels<float>& factor_kernels<float>(Level);
template const FactorKernels<bfloat16>& factor_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
