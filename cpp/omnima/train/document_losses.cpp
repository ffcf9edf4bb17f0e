// Documents sorted by length share batches, so little of a batch is padding.
#include "omnima/train/document_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <algorithm>
#include <numeric>

#include "omnima/core/error.h"
#include "omnima/core/labels.h"
#include "omnima/train/flush_denormals.h"
#include "omnima/train/row_workers.h"

namespace omnima::train {

using core::DataError;
using core::require;

namespace {

// Adapters are prepared once, before the workers start.
const nn::Compute kPrepared{at::kFloat, false, 0, false, 0, true};

constexpr std::int64_t kBatchTokens = 4096;

struct Document {
  std::int64_t start, length, number;
};

std::vector<Document> longest_first(std::span<const std::int64_t> ends, std::int64_t size,
                                    std::int64_t context) {
  std::vector<Document> documents;
  std::int64_t start = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    require<DataError>(ends[i] > start && ends[i] <= size, "document ", i + 1, " ends at token ",
                       ends[i], "; expected more than ", start, " and at most ", size);
    documents.push_back({start, std::min(context, ends[i] - start), static_cast<std::int64_t>(i)});
    start = ends[i];
  }
  std::ranges::stable_sort(documents, std::greater<>{}, &Document::length);
  return documents;
}

data::Batch batch_of(std::span<const Document> documents, std::span<const std::int64_t> tokens,
                     std::int64_t start_id) {
  data::Batch batch;
  batch.rows = static_cast<std::int64_t>(documents.size());
  batch.time = documents.front().length;
  const auto cells = static_cast<std::size_t>(batch.rows * batch.time);
  batch.input_ids.assign(cells, start_id);
  batch.labels.assign(cells, core::kIgnoredLabel);
  auto ids = batch.input_ids.begin(), labels = batch.labels.begin();
  for (const Document& each : documents) {
    const auto text =
        tokens.subspan(static_cast<std::size_t>(each.start), static_cast<std::size_t>(each.length));
    std::ranges::copy(text, labels);
    std::ranges::copy(text.first(text.size() - 1), ids + 1);
    ids += batch.time;
    labels += batch.time;
  }
  return batch;
}

at::Tensor losses_of_rows(models::Decoder& model, const BatchTensors& rows) {
  const at::Tensor logits = model.logits(rows.ids, kPrepared);
  return at::cross_entropy_loss(logits.flatten(0, 1), rows.labels.flatten(), {},
                                at::Reduction::None, core::kIgnoredLabel)
      .view_as(rows.labels)
      .sum(1, false, at::kDouble);
}

at::Tensor loss_of_row(models::Decoder& model, const BatchTensors& row) {
  return model.losses(row.ids, row.labels, {}, {kPrepared}).words.to(at::kDouble).view({1});
}

}  // namespace

DocumentLosses document_losses(models::Decoder& model, std::span<const std::int64_t> tokens,
                               std::span<const std::int64_t> ends, std::int64_t start_id,
                               std::int64_t most_logits) {
  require<core::ConfigError>(model.config().causal,
                             "a model with causal false has no loss of next tokens.");
  const std::int64_t vocab = model.config().vocab_size;
  const auto odd =
      std::ranges::find_if(tokens, [&](std::int64_t id) { return id < 0 || id >= vocab; });
  require<DataError>(odd == tokens.end(), "Token id ", odd == tokens.end() ? 0 : *odd,
                     " lies outside the vocabulary of ", vocab,
                     " tokens: were the documents encoded with this model's tokenizer?");
  const auto documents = longest_first(ends, static_cast<std::int64_t>(tokens.size()),
                                       model.config().max_position_embeddings);
  const FlushDenormals flush;
  const at::Device device = model.arena().weights().device();
  model.arena().pack(at::kFloat, false);
  model.adapters().prepare(model.arena(), at::kFloat);
  DocumentLosses losses{std::vector<double>(ends.size()), std::vector<std::int64_t>(ends.size())};
  for (std::size_t first = 0; first < documents.size();) {
    const std::int64_t longest = documents[first].length;
    const bool alone = longest > most_logits / vocab;
    const auto rows =
        alone ? std::size_t{1}
              : static_cast<std::size_t>(std::max<std::int64_t>(1, kBatchTokens / longest));
    const auto part = std::span(documents).subspan(first, std::min(rows, documents.size() - first));
    const data::Batch batch = batch_of(part, tokens, start_id);
    const Slicing slicing{row_workers(batch.rows, model.arena().numbers(), device),
                          std::clamp<std::int64_t>(most_logits / vocab, 1, 1024)};
    sum_over_rows(batch_tensors(batch, device), slicing, false, [&](const Slice& slice) {
      const at::Tensor each =
          (alone ? loss_of_row(model, slice.rows) : losses_of_rows(model, slice.rows)).cpu();
      for (std::int64_t row = 0; row < each.size(0); ++row) {
        const Document& document = part[static_cast<std::size_t>(slice.first + row)];
        losses.sums[static_cast<std::size_t>(document.number)] = each.const_data_ptr<double>()[row];
        losses.tokens[static_cast<std::size_t>(document.number)] = document.length;
      }
      return 0.0;
    });
    first += part.size();
  }
  return losses;
}

}  // namespace omnima::train
