// Chooses the variant of rotary for the active instruction-set level.
#include "omnima/kernels/cpu/rotary.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const RotaryKernels<T>& rotary_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const RotaryKernels<T>& rotary_table();
}
namespace avx512 {
template <class T>
const RotaryKernels<T>& rotary_table();
}
#endif

template <class T>
const RotaryKernels<T>& rotary_kernels(Level level) {
  static const Variants<const RotaryKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::rotary_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::rotary_table<T>},
      {Level::kAvx512, avx512::rotary_table<T>},
#endif
  };
  return variants.at(level)();
}
template const RotaryKernels<float>& rotary_kernels<float>(Level);
template const RotaryKernels<bfloat16>& rotary_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
