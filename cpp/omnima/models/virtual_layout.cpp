#include "omnima/models/virtual_layout.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <vector>

#include "omnima/core/error.h"

namespace omnima::models {
namespace {

constexpr std::int64_t kIgnored = -100;

struct Document {
  std::int64_t begin, end;
  bool learned;  // has a label
};

std::vector<Document> documents_of(const std::int32_t* segments, const std::int64_t* labels,
                                   std::int64_t time) {
  std::vector<Document> documents;
  for (std::int64_t begin = 0, end = 0; begin < time; begin = end) {
    end = segments == nullptr
              ? time
              : std::find_if(segments + begin, segments + time, [&](std::int32_t each) {
                  return each != segments[begin];
                }) - segments;
    const bool learned =
        labels == nullptr || std::any_of(labels + begin, labels + end,
                                         [](std::int64_t label) { return label != kIgnored; });
    documents.push_back({begin, end, learned});
  }
  return documents;
}

template <class T>
const T* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}

}  // namespace

VirtualLayout with_virtual_tokens(const at::Tensor& ids, const at::Tensor& labels,
                                  const at::Tensor& segments, std::int64_t count,
                                  std::int64_t longest) {
  const std::int64_t batch = ids.size(0), time = ids.size(1);
  const auto on_host = [](const at::Tensor& x) { return x.defined() ? x.cpu().contiguous() : x; };
  const at::Tensor tokens = on_host(ids), targets = on_host(labels);
  const at::Tensor borders =
      segments.defined() ? segments.to(at::kCPU, at::kInt).contiguous() : at::Tensor();
  std::vector<std::vector<Document>> rows;
  std::int64_t wide = 0;
  for (std::int64_t row = 0; row < batch; ++row) {
    const auto of_row = [&]<class T>(const T* data) { return data ? data + row * time : nullptr; };
    rows.push_back(documents_of(of_row(data_of<std::int32_t>(borders)),
                                of_row(data_of<std::int64_t>(targets)), time));
    std::int64_t width = time;
    for (Document& each : rows.back()) {
      if (!borders.defined()) each.learned = true;  // all rows alike
      if (!each.learned) continue;
      core::require<core::DataError>(
          each.end - each.begin + count <= longest, "A document of ", each.end - each.begin,
          " tokens with ", count, " virtual tokens in front is longer than the model's context of ",
          longest, ": shorten the documents, or take fewer virtual tokens.");
      width += count;
    }
    wide = std::max(wide, width);
  }
  VirtualLayout made;
  const auto filled = [&](std::int64_t value, at::ScalarType type) {
    return at::full({batch, wide}, value, type);
  };
  const at::Tensor new_ids = filled(0, at::kLong), new_labels = filled(kIgnored, at::kLong);
  const at::Tensor new_segments = filled(0, at::kInt);
  std::vector<std::int64_t> places, which;
  for (std::int64_t row = 0; row < batch; ++row) {
    std::int64_t to = row * wide;
    std::int32_t segment = 0;
    auto* number = new_segments.data_ptr<std::int32_t>();
    for (const Document& each : rows[static_cast<std::size_t>(row)]) {
      const std::int64_t begin = to;
      for (std::int64_t i = 0; each.learned && i < count; ++i, ++to) {
        places.push_back(to);
        which.push_back(i);
      }
      const std::int64_t size = each.end - each.begin, from = row * time + each.begin;
      std::copy_n(tokens.const_data_ptr<std::int64_t>() + from, size,
                  new_ids.data_ptr<std::int64_t>() + to);
      if (targets.defined()) {
        std::copy_n(targets.const_data_ptr<std::int64_t>() + from, size,
                    new_labels.data_ptr<std::int64_t>() + to);
      }
      to += size;
      std::fill(number + begin, number + to, segment++);
    }
    std::fill(number + to, number + (row + 1) * wide, segment);
  }
  const auto there = [&](const at::Tensor& x) { return x.to(ids.device()); };
  made.ids = there(new_ids);
  if (targets.defined()) made.labels = there(new_labels);
  if (borders.defined()) made.segments = there(new_segments);
  made.places = {there(at::tensor(places, at::kLong)), there(at::tensor(which, at::kLong))};
  return made;
}

}  // namespace omnima::models
