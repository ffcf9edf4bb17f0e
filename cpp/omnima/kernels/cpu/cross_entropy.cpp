// Chooses the variant of cross_entropy for the active instruction-set level.
#include "omnima/kernels/cpu/cross_entropy.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const CrossEntropyKernels<T>& cross_entropy_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const CrossEntropyKernels<T>& cross_entropy_table();
}
namespace avx512 {
template <class T>
const CrossEntropyKernels<T>& cross_entropy_table();
}
namespace avx512bf16 {
template <class T>
const CrossEntropyKernels<T>& cross_entropy_table();
}
#endif

template <class T>
const CrossEntropyKernels<T>& cross_entropy_kernels(Level level) {
  static const Variants<const CrossEntropyKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::cross_entropy_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::cross_entropy_table<T>},
      {Level::kAvx512, avx512::cross_entropy_table<T>},
      {Level::kAvx512Bf16, avx512bf16::cross_entropy_table<T>},
#endif
  };
  return variants.at(level)();
}
template const CrossEntropyKernels<float>& cross_entropy_kernels<float>(Level);
template const CrossEntropyKernels<bfloat16>& cross_entropy_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
