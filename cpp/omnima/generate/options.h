// How text is drawn from a model. The fields are described once, in options.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "omnima/core/field.h"

namespace omnima::generate {

using Ids = std::vector<std::int64_t>;

struct GenerateOptions {
  std::int64_t max_new_tokens = 128;
  double temperature = 0.0;                     // 0: always the likeliest token
  std::int64_t top_k = 0;                       // 0: off
  double top_p = 1.0;                           // 1: off
  double min_p = 0.0;                           // 0: off
  double repetition_penalty = 1.0;              // 1: off
  double frequency_penalty = 0.0;               // for each time that a token was written; 0: off
  double presence_penalty = 0.0;                // once for a token that was written; 0: off
  std::int64_t speculative_tokens = 0;          // checked together with the next one; 0: off
  std::string prompt_precision = "fp32";        // of a long prompt's products: "fp32" or "bf16"
  std::string cache_precision = "fp32";         // of keys and values: "fp32", "bf16" or "int8"
  std::map<std::int64_t, double> logit_bias{};  // what is added to the logits of these ids
  Ids stop_ids{};                               // a sequence ends after any of these
  std::vector<std::uint64_t> seeds{};           // one a sequence
  std::int64_t known_ids = 0;  // only ids below are drawn; 0: any that the model has

  static const std::vector<core::Field>& fields();
  // From named values; an unknown name or a value out of its bounds is a ConfigError.
  static GenerateOptions from_values(const std::map<std::string, core::FieldValue>& values);
};

}  // namespace omnima::generate
