// Chooses the variant of attention for the active instruction-set level.
#include "omnima/kernels/cpu/attention.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const AttentionKernels<T>& attention_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const AttentionKernels<T>& attention_table();
}
namespace avx512 {
template <class T>
const AttentionKernels<T>& attention_table();
}
namespace avx512bf16 {
template <class T>
const AttentionKernels<T>& attention_table();
}
namespace amx {
template <class T>
const AttentionKernels<T>& attention_table();
}
#endif

template <class T>
const AttentionKernels<T>& attention_kernels(Level level) {
  static const Variants<const AttentionKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::attention_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::attention_table<T>},
      {Level::kAvx512, avx512::attention_table<T>},
      {Level::kAvx512Bf16, avx512bf16::attention_table<T>},
      {Level::kAmx, amx::attention_table<T>},
#endif
  };
  return variants.at(level)();
}
template const AttentionKernels<float>& attention_kernels<float>(Level);
template const AttentionKernels<bfloat16>& attention_kernels<bfloat16>(Level);

}  // namespace omnima::kernels
