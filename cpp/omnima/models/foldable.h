// Where a factor can move from what matrices read into the matrices, the model computing the same.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace omnima::models {

struct Foldable {
  // Matrices that read the same inputs, and nothing else does.
  std::vector<std::string> readers;
  // What the inputs are made by: a norm's weight and bias, or the rows (and bias) of a matrix.
  std::vector<std::string> writers;
};

// Those of the block whose parameters' names begin with `prefix`.
std::vector<Foldable> foldables(const std::string& prefix,
                                const std::map<std::string, std::int64_t>& names);

}  // namespace omnima::models
