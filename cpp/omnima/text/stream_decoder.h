// Ids to text one by one: a character that is not whole yet is held back. The parts join to the
// whole decode; only where byte tokens spell broken UTF-8 and the marking is Hugging Face's does
// that one replace the whole run of them, characters before the broken one too.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "omnima/text/tokenizer.h"

namespace omnima::text {

class StreamDecoder {
 public:
  // The ids that came before tell whether a text begins; see Tokenizer::opening().
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true,
                         std::span<const Id> after = {});

  // The text that the token completes; may be empty.
  std::string push(Id id);

  // What was held back, with U+FFFD for an unfinished character; the decoder is as new afterwards.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  Opening first_opening_, opening_;
  std::string pending_;
};

}  // namespace omnima::text
