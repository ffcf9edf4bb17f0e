// A batch cut by rows into parts that are worked on at the same time, one thread each: in a small
// model the operators are too short to be worth cutting, whole rows are not.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "omnima/data/batch.h"

namespace omnima::train {

struct BatchTensors {
  at::Tensor ids, labels, segments;  // [rows, time]; segments may be undefined

  BatchTensors rows(std::int64_t first, std::int64_t count) const;
};

// Views of the batch's own memory, moved where the model lives.
BatchTensors batch_tensors(const data::Batch& batch, const at::Device& device);

// How many parts a batch of so many rows is cut into for a model of so many parameters: one for
// each thread, or a single one where every operator has work enough for all threads.
std::int64_t row_workers(std::int64_t rows, std::int64_t parameters, const at::Device& device);

// Some rows of a batch that pass through the model together.
struct Slice {
  BatchTensors rows;
  std::int64_t first;   // of the batch's rows
  std::int64_t worker;  // that computes it
};

struct Slicing {
  std::int64_t workers = 1;
  std::int64_t tokens = 1024;  // about so many in a slice, but one row at least
  std::int64_t together = 1;   // so many neighbouring rows stay in one slice
};

// The sum of part(slice) over a batch, added in order. Each worker takes its share of the rows in
// slices: what a slice's layers keep for backward stays small, whatever the batch, and mostly in
// the cache. On other devices than the CPU a batch is one slice. Runs with gradients recorded or
// not, as asked.
double sum_over_rows(const BatchTensors& batch, const Slicing& slicing, bool with_gradients,
                     const std::function<double(const Slice&)>& part);

}  // namespace omnima::train
