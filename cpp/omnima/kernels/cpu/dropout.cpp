// Chooses the variant of dropout for the active instruction-set level.
#include "omnima/kernels/cpu/dropout.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const DropoutKernels<T>& dropout_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const DropoutKernels<T>& dropout_table();
}
namespace avx512 {
template <class T>
const DropoutKernels<T>& dropout_table();
}
#endif

template <class T>
const DropoutKernels<T>& dropout_kernels(Level level) {
  static const Variants<const DropoutKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::dropout_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::dropout_table<T>},
      {Level::kAvx512, avx512::dropout_table<T>},
#endif
  };
  return variants.at(level)();
}
template const DropoutKernels<float>& dropout_kernels<float>(Level);
template const DropoutKernels<bfloat16>& dropout_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
