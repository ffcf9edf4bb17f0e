// What the tests of the training step share: a small model, batches and a source of them.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "omnima/core/error.h"
#include "omnima/train/step.h"

namespace omnima::train {

using models::Decoder;
using Changes = std::map<std::string, core::FieldValue>;
constexpr std::int64_t kVocab = 61;

inline std::shared_ptr<Decoder> small(std::uint64_t seed = 5, const Changes& changes = {}) {
  Changes values{{"vocab_size", kVocab},
                 {"hidden_size", std::int64_t{32}},
                 {"num_hidden_layers", std::int64_t{2}},
                 {"num_attention_heads", std::int64_t{4}},
                 {"max_position_embeddings", std::int64_t{24}}};
  for (const auto& [name, value] : changes) values[name] = value;
  return std::make_shared<Decoder>(models::DecoderConfig::from_values(values), seed);
}

inline data::Batch some_batch(std::int64_t rows, std::int64_t time, std::int64_t ignored,
                              std::int64_t shift = 0) {
  data::Batch batch;
  batch.rows = rows;
  batch.time = time;
  for (std::int64_t i = 0; i < rows * time; ++i) {
    batch.input_ids.push_back((i * 7 + rows + shift) % kVocab);
    batch.labels.push_back(i < ignored ? -100 : (i * 5 + 3 + shift) % kVocab);
  }
  batch.targets = rows * time - ignored;
  return batch;
}

// The batch as rows of `time` places, filled with a token whose label is ignored.
inline data::Batch padded(const data::Batch& batch, std::int64_t time) {
  data::Batch wide;
  wide.rows = batch.rows;
  wide.time = time;
  wide.targets = batch.targets;
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    for (std::int64_t i = 0; i < time; ++i) {
      const std::int64_t at = row * batch.time + i;
      wide.input_ids.push_back(i < batch.time ? batch.input_ids[at] : 0);
      wide.labels.push_back(i < batch.time ? batch.labels[at] : -100);
    }
  }
  return wide;
}

inline data::Batch together(const std::vector<data::Batch>& parts) {
  data::Batch all = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto& part = parts[i];
    all.rows += part.rows;
    all.targets += part.targets;
    all.input_ids.insert(all.input_ids.end(), part.input_ids.begin(), part.input_ids.end());
    all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
  }
  return all;
}

// Gives batches that differ from place to place; every fourth has no target.
class Counting : public data::BatchSource {
 public:
  void next(data::Batch& batch) override {
    batch = some_batch(2, 8, position_ % 4 == 3 ? 16 : position_, position_);
    ++position_;
  }
  std::int64_t position() const override { return position_; }
  void seek(std::int64_t position) override { position_ = position; }

 private:
  std::int64_t position_ = 0;
};

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

inline StepOptions options_with(const std::string& precision, double lr = 1e-3) {
  StepOptions options;
  options.precision = precision;
  options.lr = lr;
  options.schedule = "constant";
  return options;
}

template <class E, class F>
std::string message_of(F run) {
  try {
    run();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

inline bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace omnima::train
