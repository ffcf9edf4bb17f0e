// Flushes denormal numbers to zero on every computing thread while it lives: they cost up to 4x in
// speed.
#pragma once

namespace omnima::train {

class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace omnima::train
