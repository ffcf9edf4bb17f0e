// gemv with 8 lanes.
#ifdef OMNIMA_X86
#include "omnima/kernels/cpu/gemv_tile.h"
#include "omnima/kernels/cpu/lanes_avx2.h"

namespace omnima::kernels {

void gemv_avx2(const Gemv& product, std::int64_t begin, std::int64_t end) {
  gemv_range<Avx2>(product, begin, end);
}

}  // namespace omnima::kernels
#endif
