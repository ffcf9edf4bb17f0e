// The side of libFuzzer: OMNIMA_FUZZ_ENTRY is the entry of this program.
#include <algorithm>
#include <cstdint>

#include "entries.h"

using omnima::fuzz::OMNIMA_FUZZ_ENTRY;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t room);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  OMNIMA_FUZZ_ENTRY.run({reinterpret_cast<const char*>(data), size});
  return 0;
}

// Seven of eight changes are repaired.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t room, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, room);
  if (OMNIMA_FUZZ_ENTRY.repair == nullptr || seed % 8 == 0) return size;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  OMNIMA_FUZZ_ENTRY.repair(bytes);
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}
