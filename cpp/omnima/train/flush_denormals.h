// Flushes denormal numbers to zero on every computing thread while it lives: they cost up to 4x in
// speed. Each thread then does as it did before.
#pragma once

#include <optional>
#include <vector>

#include "omnima/core/flush_denormals.h"

namespace omnima::train {

class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  std::vector<std::optional<core::FlushDenormals>> threads_;
};

}  // namespace omnima::train
