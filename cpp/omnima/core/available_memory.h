// How much memory a process may still take.
#pragma once

#include <cstdint>

namespace omnima::core {

// Bytes that the system gives without swapping, within the limit of its container; where it does
// not tell, the largest number.
std::int64_t available_memory();

}  // namespace omnima::core
