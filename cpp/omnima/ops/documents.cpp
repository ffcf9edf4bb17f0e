#include <ATen/ops/empty.h>

#include <algorithm>

#include "omnima/ops/device_ops.h"

namespace omnima::ops {

void find_documents(const at::Tensor& places, const at::Device& device, Positions& positions) {
  const auto* place = places.const_data_ptr<int64_t>();
  const int64_t tokens = places.numel();
  const int64_t documents = std::count(place, place + tokens, 0);
  const at::Tensor starts = at::empty({documents + 1}, at::kInt);
  auto* at = starts.data_ptr<int32_t>();
  int64_t longest = 0;
  for (int64_t i = 0; i < tokens; ++i) {
    if (place[i] == 0) *at++ = static_cast<int32_t>(i);
    longest = std::max(longest, place[i] + 1);
  }
  *at = static_cast<int32_t>(tokens);
  positions.document_starts = starts.to(device);
  positions.longest_document = longest;
}

}  // namespace omnima::ops
