// Memory that was freed and that the allocator keeps.
#pragma once

namespace omnima::core {

// Gives it to the system, where the C library can: buffers of many sizes leave holes that add up.
void give_memory_back();

// While one lives, pieces of two mebibytes or more lie by themselves and go back when they are
// freed: for work whose many large buffers would leave holes, and which can pay for new pages each
// time. Afterwards the C library has the least size that it arrives at by itself where large pieces
// come and go. Of the whole process.
class LargePiecesApart {
 public:
  LargePiecesApart();
  ~LargePiecesApart();
  LargePiecesApart(const LargePiecesApart&) = delete;
  LargePiecesApart& operator=(const LargePiecesApart&) = delete;
};

}  // namespace omnima::core
