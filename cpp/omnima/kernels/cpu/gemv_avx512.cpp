// gemv with 16 lanes.
#ifdef OMNIMA_X86
#include "omnima/kernels/cpu/gemv_tile.h"
#include "omnima/kernels/cpu/lanes_avx512.h"

namespace omnima::kernels {

void gemv_avx512(const Gemv& product, std::int64_t begin, std::int64_t end) {
  gemv_range<Avx512>(product, begin, end);
}

}  // namespace omnima::kernels
#endif
