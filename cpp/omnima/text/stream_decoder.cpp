// Ids to text one by one: a character that is not whole yet is held back; the parts join to the
// whole decode.
#include "omnima/text/stream_decoder.h"

#include <utility>

#include "omnima/text/utf8.h"

namespace omnima::text {

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamDecoder::push(Id id) {
  tokenizer_->append_bytes(id, skip_special_, pending_);
  std::string text;
  pending_.erase(0, append_replaced(pending_, true, text));
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  append_replaced(std::exchange(pending_, {}), false, text);
  return text;
}

}  // namespace omnima::text
