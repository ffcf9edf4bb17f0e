// Memory that was freed and that the allocator keeps.
#pragma once

namespace omnima::core {

// Gives it to the system, where the C library can: buffers of many sizes leave holes that add up.
void give_memory_back();

}  // namespace omnima::core
