// One micro-batch of token ids as the training step reads it: plain memory, no tensors.
#pragma once

#include <cstdint>
#include <vector>

namespace omnima::data {

struct Batch {
  std::int64_t rows = 0;
  std::int64_t time = 0;
  std::vector<std::int64_t> input_ids;  // [rows, time]
  std::vector<std::int64_t> labels;     // [rows, time], already shifted; -100 is ignored
  std::vector<std::int32_t>
      segments;  // [rows, time] document number inside the row; empty: no borders
  // [rows] where rows 2k and 2k + 1 are answers to the same, of which the first is preferred: their
  // summed losses by the model that the run began with. Empty: no pairs, or none needed.
  std::vector<float> reference;
  // [rows] where rows 2k are answers that people judged, 1 where they liked it, and 2k + 1 the same
  // question with another one's answer. Empty: answers are not judged.
  std::vector<std::uint8_t> good;
  std::int64_t targets = 0;  // labels that are not -100
};

// A source of batches: its order is a pure function of (seed, epoch, position).
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual void next(Batch& batch) = 0;  // fills `batch`; an exhausted source throws core::DataError
  virtual std::int64_t position() const = 0;  // batches given so far
  virtual void seek(std::int64_t position) = 0;
  // Copies of what the next `count` calls of next() will give, where that costs nothing to say.
  virtual bool peek(std::size_t count, std::vector<Batch>& batches) const { return false; }
};

}  // namespace omnima::data
