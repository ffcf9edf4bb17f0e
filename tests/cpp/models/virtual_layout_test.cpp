// Rows with virtual tokens in front of their documents.
#include "omnima/models/virtual_layout.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "omnima/core/error.h"

namespace omnima::models {
namespace {

at::Tensor row(const std::vector<std::int64_t>& values) {
  return at::tensor(values, at::kLong).unsqueeze(0);
}

TEST(VirtualLayout, PutsTokensInFrontOfEveryDocument) {
  const at::Tensor ids = row({7, 8, 9, 5, 6, 0}), labels = row({8, 9, -100, 6, 4, -100});
  const at::Tensor segments = row({3, 3, 3, 4, 4, 5}).to(at::kInt);
  const VirtualLayout made = with_virtual_tokens(ids, labels, segments, 2, 5);
  EXPECT_TRUE(at::equal(made.ids, row({0, 0, 7, 8, 9, 0, 0, 5, 6, 0})));
  EXPECT_TRUE(at::equal(made.labels, row({-100, -100, 8, 9, -100, -100, -100, 6, 4, -100})));
  EXPECT_TRUE(at::equal(made.segments, row({0, 0, 0, 0, 0, 1, 1, 1, 1, 2}).to(at::kInt)));
  EXPECT_TRUE(at::equal(made.places.places, at::tensor({0, 1, 5, 6}, at::kLong)));
  EXPECT_TRUE(at::equal(made.places.which, at::tensor({0, 1, 0, 1}, at::kLong)));
}

TEST(VirtualLayout, RowsWithoutBordersStayAlike) {
  const at::Tensor ids = row({7, 8}).repeat({2, 1});
  const VirtualLayout made = with_virtual_tokens(ids, {}, {}, 1, 3);
  EXPECT_TRUE(at::equal(made.ids, row({0, 7, 8}).repeat({2, 1})));
  EXPECT_FALSE(made.labels.defined() || made.segments.defined());
  EXPECT_TRUE(at::equal(made.places.places, at::tensor({0, 3}, at::kLong)));
}

TEST(VirtualLayout, ShorterRowsEndInADocumentOfTheirOwn) {
  const at::Tensor ids = at::cat({row({1, 2, 3}), row({4, 5, 6})}, 0), labels = ids;
  const at::Tensor segments = at::cat({row({0, 1, 2}), row({0, 0, 0})}, 0).to(at::kInt);
  const VirtualLayout made = with_virtual_tokens(ids, labels, segments, 1, 4);
  EXPECT_TRUE(at::equal(made.ids[0], row({0, 1, 0, 2, 0, 3})[0]));
  EXPECT_TRUE(at::equal(made.labels[1], row({-100, 4, 5, 6, -100, -100})[0]));
  EXPECT_TRUE(at::equal(made.segments[1], row({0, 0, 0, 0, 1, 1})[0].to(at::kInt)));
}

TEST(VirtualLayout, RefusesWhatIsLongerThanTheContext) {
  EXPECT_THROW(with_virtual_tokens(row({1, 2, 3}), {}, {}, 2, 4), core::DataError);
}

}  // namespace
}  // namespace omnima::models
