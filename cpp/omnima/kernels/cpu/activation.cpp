// Chooses the variant of activation for the active instruction-set level.
#include "omnima/kernels/cpu/activation.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const ActivationKernels<T>& activation_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const ActivationKernels<T>& activation_table();
}
namespace avx512 {
template <class T>
const ActivationKernels<T>& activation_table();
}
namespace avx512bf16 {
template <class T>
const ActivationKernels<T>& activation_table();
}
#endif

template <class T>
const ActivationKernels<T>& activation_kernels(Level level) {
  static const Variants<const ActivationKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::activation_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::activation_table<T>},
      {Level::kAvx512, avx512::activation_table<T>},
      {Level::kAvx512Bf16, avx512bf16::activation_table<T>},
#endif
  };
  return variants.at(level)();
}
template const ActivationKernels<float>& activation_kernels<float>(Level);
template const ActivationKernels<bfloat16>& activation_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
