// Ids to text one by one: a character that is not whole yet is held back.
#include "omnima/text/stream_decoder.h"

#include <utility>

#include "omnima/text/utf8.h"

namespace omnima::text {

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special,
                             std::span<const Id> after)
    : tokenizer_(std::move(tokenizer)),
      skip_special_(skip_special),
      first_opening_(tokenizer_->opening(after, skip_special)),
      opening_(first_opening_) {}

std::string StreamDecoder::push(Id id) {
  tokenizer_->append_bytes(id, skip_special_, opening_, pending_);
  std::string text;
  pending_.erase(0, append_replaced(pending_, true, text, tokenizer_->replaces_each_byte()));
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  append_replaced(std::exchange(pending_, {}), false, text, tokenizer_->replaces_each_byte());
  opening_ = first_opening_;
  return text;
}

}  // namespace omnima::text
