#include "omnima/core/free_memory.h"

#ifdef __linux__
#include <malloc.h>
#endif

namespace omnima::core {

#ifdef __GLIBC__
namespace {

constexpr int kApart = 2 << 20, kUsual = 32 << 20;  // bytes; glibc's threshold grows to the latter

}  // namespace

void give_memory_back() { malloc_trim(0); }
LargePiecesApart::LargePiecesApart() {
  malloc_trim(0);
  mallopt(M_MMAP_THRESHOLD, kApart);
}
LargePiecesApart::~LargePiecesApart() {
  mallopt(M_MMAP_THRESHOLD, kUsual);
  mallopt(M_TRIM_THRESHOLD, 2 * kUsual);
}
#else
void give_memory_back() {}
LargePiecesApart::LargePiecesApart() {}
LargePiecesApart::~LargePiecesApart() {}
#endif

}  // namespace omnima::core
