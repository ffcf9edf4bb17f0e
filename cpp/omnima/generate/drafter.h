// A smaller model with the same vocabulary writes ahead of a larger one.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "omnima/generate/model_runner.h"
#include "omnima/generate/options.h"
#include "omnima/generate/sequence.h"
#include "omnima/models/decoder_config.h"

namespace omnima::generate {

class Drafter {
 public:
  // `longest`: the most tokens of any sequence; `places`: sequences at once; `known`: ids below it
  // are drawn.
  Drafter(const models::DecoderConfig& config, const RunnableModel& model,
          const GenerateOptions& options, std::int64_t longest, std::size_t places,
          std::size_t known);

  // For a sequence of at most `capacity` tokens.
  std::unique_ptr<Draft> begin(std::int64_t capacity, std::uint64_t seed);
  // Appends up to `wanted` tokens to the proposals of each sequence. A token is drawn with the
  // random number that the sequence will draw there, so that likely proposals are right ones.
  void propose(const std::vector<std::unique_ptr<Sequence>>& sequences);

  // Reads all but the last token that the sequence holds; false: it does not fit the context.
  bool catch_up(Sequence& sequence);

 private:
  void step();

  const models::DecoderConfig& config_;
  const GenerateOptions& options_;
  std::size_t known_;
  std::unique_ptr<ModelRunner> runner_;
  std::vector<float> logits_;       // [places, vocab]
  std::vector<Sequence*> writing_;  // those that get a token more
  std::vector<SequenceState*> states_;
  Ids tokens_;
};

}  // namespace omnima::generate
