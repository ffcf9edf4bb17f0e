// Numbers too small to be normal cost a hundred times the cycles and carry nothing.
#pragma once

#include <cstdint>

namespace omnima::core {

// While it lives, its thread takes such numbers as zero; then it does as it did before.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  std::uint64_t saved_;
};

}  // namespace omnima::core
