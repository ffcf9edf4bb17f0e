// Ids to text one by one: a character that is not whole yet is held back; the parts join to the
// whole decode.
#pragma once

#include <memory>
#include <string>

#include "omnima/text/tokenizer.h"

namespace omnima::text {

class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);

  // The text that the token completes; may be empty.
  std::string push(Id id);

  // What was held back, with U+FFFD for an unfinished character; the decoder is as new afterwards.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace omnima::text
