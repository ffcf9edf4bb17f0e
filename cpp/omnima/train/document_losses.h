// How hard each of many documents is for a model: its loss on every one, in batches of like length.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "omnima/models/decoder.h"

namespace omnima::train {

struct DocumentLosses {
  std::vector<double> sums;          // of the losses of a document's tokens, in nats
  std::vector<std::int64_t> tokens;  // that were measured
};

// tokens: of all documents, one behind the other; ends: where each ends among them, so each has one
// token at least. The input before a document's first token is start_id. Of a document longer than
// the model's context the beginning is measured. Where a document has more logits than most_logits
// (of 4 bytes), none are written out.
DocumentLosses document_losses(models::Decoder& model, std::span<const std::int64_t> tokens,
                               std::span<const std::int64_t> ends, std::int64_t start_id,
                               std::int64_t most_logits = std::int64_t{1} << 23);

}  // namespace omnima::train
