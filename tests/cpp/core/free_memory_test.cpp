// Where large pieces of memory lie.
#include "omnima/core/free_memory.h"

#include <gtest/gtest.h>

// Sanitizers have an allocator of their own.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <malloc.h>

#include <cstdlib>

namespace omnima::core {
namespace {

// By itself is what the C library maps for one piece alone.
bool lies_by_itself(std::size_t bytes) {
  const std::size_t before = mallinfo2().hblks;
  void* volatile piece = std::malloc(bytes);  // or compilers leave out what nobody uses
  const bool apart = mallinfo2().hblks == before + 1;
  std::free(piece);
  return apart && mallinfo2().hblks == before;
}

TEST(FreeMemory, LargePiecesLieByThemselvesInAScopeAlone) {
  constexpr std::size_t kLarge = 31 << 20, kSmall = 1 << 10;
  {
    const LargePiecesApart apart;
    EXPECT_TRUE(lies_by_itself(kLarge));
    EXPECT_FALSE(lies_by_itself(kSmall));
  }
  EXPECT_FALSE(lies_by_itself(kLarge));
}

}  // namespace
}  // namespace omnima::core
#endif
