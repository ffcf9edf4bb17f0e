// Small models with random weights and random texts, for the tests of writing.
#pragma once

#include <cstdint>

#include "../models/families.h"
#include "omnima/generate/sampler.h"
#include "omnima/generate/weights.h"
#include "omnima/models/decoder.h"

namespace omnima::generate {

// Two blocks of 32, but for the changes.
inline models::DecoderConfig tiny_config(models::Changes changes, std::int64_t vocab,
                                         std::int64_t context) {
  changes.insert({"vocab_size", vocab});
  changes.insert({"hidden_size", std::int64_t{32}});
  changes.insert({"num_hidden_layers", std::int64_t{2}});
  changes.insert({"num_attention_heads", std::int64_t{4}});
  changes.insert({"max_position_embeddings", context});
  changes.insert({"initializer_range", 0.1});
  return models::DecoderConfig::from_values(changes);
}

inline Parameters parameters_of(const models::Decoder& model) {
  const auto named = model.named_parameters();
  return {named.begin(), named.end()};
}

inline Ids random_ids(std::uint64_t seed, std::int64_t count, std::int64_t vocab) {
  Ids ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int64_t>(uniform(seed, static_cast<std::uint64_t>(i)) *
                                            static_cast<double>(vocab)));
  }
  return ids;
}

}  // namespace omnima::generate
