// Large memory in large pages: a core that walks it finds its addresses without a search.
#pragma once

#include <cstddef>

namespace omnima::core {

// Asks the system for pages of 2 MiB wherever memory..memory + bytes holds whole ones. To be called
// before the memory is first written. It changes no contents, and where the system has no such
// pages it does nothing.
void prefer_huge_pages(void* memory, std::size_t bytes);

}  // namespace omnima::core
