// Numbers that change when weights do, in about a millisecond: what was computed with the same
// weights can be told from what was not.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace omnima::generate {

// Of texts and of tensors on the CPU, one after the other: a tensor's type, shape and bytes at some
// places of it, spread evenly, and how often torch has written to it. A training step writes nearly
// everywhere; a change of few numbers that torch does not see may be missed.
class Fingerprint {
 public:
  void add(std::uint64_t number);
  void add(std::string_view text);
  void add(const at::Tensor& tensor);
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0x9e3779b97f4a7c15;
};

}  // namespace omnima::generate
