#include "omnima/core/free_memory.h"

#ifdef __linux__
#include <malloc.h>
#endif

namespace omnima::core {

void give_memory_back() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace omnima::core
