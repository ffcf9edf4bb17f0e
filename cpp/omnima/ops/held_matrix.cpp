#include "omnima/ops/held_matrix.h"

#include <ATen/Parallel.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include "omnima/core/buffer.h"
#include "omnima/core/scope.h"

namespace omnima::ops {
namespace {

thread_local core::Buffer numbers_buffer;

}  // namespace

at::Tensor numbers_of(const HeldMatrix& held, std::int64_t first, std::int64_t count,
                      at::ScalarType type) {
  if (const at::Tensor all = held.as_they_lie(type); all.defined()) {
    return all.narrow(0, first, count);
  }
  // Neither float32 nor bfloat16 is for plain ATen alone: it converts by itself.
  if (type != at::kFloat && type != at::kBFloat16) {
    return numbers_of(held, first, count, at::kFloat).to(type);
  }
  const std::int64_t numbers = count * held.columns();
  const auto bytes = static_cast<std::size_t>(numbers) * c10::elementSize(type);
  const core::Scope scope("weights.from_blocks", 0, static_cast<double>(bytes));
  const at::Tensor out =
      at::from_blob(numbers_buffer.get(bytes), {count, held.columns()}, at::TensorOptions(type));
  held.write(first, out);
  return out;
}

at::Tensor numbers_of(const HeldMatrix& held, at::ScalarType type) {
  return numbers_of(held, 0, held.rows(), type);
}

at::Tensor rows_of(const HeldMatrix& held, const at::Tensor& ids, at::ScalarType type) {
  if (const at::Tensor all = held.as_they_lie(type); all.defined()) {
    return at::embedding(all, ids);
  }
  const bool narrow = type == at::kBFloat16;
  const at::Tensor places = ids.contiguous();
  const at::Tensor out = at::empty({places.numel(), held.columns()}, narrow ? type : at::kFloat);
  const auto* id = places.const_data_ptr<std::int64_t>();
  at::parallel_for(0, places.numel(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) held.write(id[i], out.narrow(0, i, 1));
  });
  return out.to(type);
}

}  // namespace omnima::ops
