// The loss of each document, beside that of the document alone.
#include "omnima/train/document_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include "step_fixture.h"

namespace omnima::train {
namespace {

struct Documents {
  std::vector<std::int64_t> tokens, ends;
};

Documents some_documents(const std::vector<int>& lengths) {
  Documents documents;
  for (const int length : lengths) {
    for (int i = 0; i < length; ++i) {
      documents.tokens.push_back((static_cast<int>(documents.tokens.size()) * 11 + 3) % kVocab);
    }
    documents.ends.push_back(static_cast<std::int64_t>(documents.tokens.size()));
  }
  return documents;
}

TEST(DocumentLosses, AreThoseOfTheDocumentsAlone) {
  auto model = small();
  std::vector<int> lengths = {5, 1, 24, 60, 2, 24};            // the context holds 24
  for (int i = 0; i < 400; ++i) lengths.push_back(9 + i % 7);  // more than one batch
  const Documents given = some_documents(lengths);
  const DocumentLosses losses = document_losses(*model, given.tokens, given.ends, 2);
  ASSERT_EQ(losses.sums.size(), lengths.size());
  std::int64_t start = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const std::int64_t length = std::min(lengths[i], 24);
    EXPECT_EQ(losses.tokens[i], length);
    if (i < 12 || i > 395) {
      std::vector<std::int64_t> labels(given.tokens.begin() + start,
                                       given.tokens.begin() + start + length);
      std::vector<std::int64_t> ids = {2};
      ids.insert(ids.end(), labels.begin(), labels.end() - 1);
      const double mean = model
                              ->loss(at::tensor(ids, at::kLong).view({1, -1}),
                                     at::tensor(labels, at::kLong).view({1, -1}), {})
                              .item<double>();
      EXPECT_NEAR(losses.sums[i] / static_cast<double>(length), mean, 1e-4) << i;
    }
    start = given.ends[i];
  }
}

// Documents whose logits are too many to be written out pass one by one.
TEST(DocumentLosses, AreTheSameWithoutLogits) {
  auto model = small();
  const Documents given = some_documents({5, 1, 24, 60, 2, 24, 12});
  const auto written = document_losses(*model, given.tokens, given.ends, 2);
  const auto fused = document_losses(*model, given.tokens, given.ends, 2, 6 * kVocab);
  EXPECT_EQ(written.tokens, fused.tokens);
  for (std::size_t i = 0; i < given.ends.size(); ++i) {
    EXPECT_NEAR(written.sums[i], fused.sums[i], 1e-3) << i;
  }
}

TEST(DocumentLosses, RefuseWhatIsNoDocument) {
  auto model = small();
  EXPECT_TRUE(document_losses(*model, {}, {}, 2).sums.empty());
  const std::vector<std::int64_t> tokens = {1, 2, 3};
  for (const std::vector<std::int64_t>& ends :
       {std::vector<std::int64_t>{0}, {2, 2}, {4}, {2, 1}}) {
    EXPECT_THROW(document_losses(*model, tokens, ends, 2), core::DataError);
  }
  const std::vector<std::int64_t> wild = {1, kVocab}, end = {2};
  EXPECT_THROW(document_losses(*model, wild, end, 2), core::DataError) << "known only as a label";
  const std::vector<std::int64_t> inside = {kVocab, 1};
  EXPECT_THROW(document_losses(*model, inside, end, 2), core::DataError);
  auto both_sides = small(5, {{"causal", false}});
  EXPECT_THROW(document_losses(*both_sides, tokens, std::vector<std::int64_t>{3}, 2),
               core::ConfigError);
}

}  // namespace
}  // namespace omnima::train
