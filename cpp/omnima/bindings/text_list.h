// Many texts that Python passes on without looking into them, such as the tokens of a file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "omnima/text/piece_index.h"

namespace omnima::bindings {

class TextList {
 public:
  explicit TextList(std::vector<std::string> texts)
      : TextList(std::make_shared<const std::vector<std::string>>(std::move(texts))) {}
  // Of texts that somebody else holds, too, such as a file's header.
  explicit TextList(std::shared_ptr<const std::vector<std::string>> texts)
      : texts_(std::move(texts)), views_(texts_->begin(), texts_->end()) {}

  const std::vector<std::string>& texts() const { return *texts_; }
  const std::vector<std::string_view>& views() const { return views_; }
  // Made at the first call.
  const text::PieceIndex& index() const {
    if (!index_) index_ = std::make_unique<text::PieceIndex>(views_);
    return *index_;
  }

 private:
  std::shared_ptr<const std::vector<std::string>> texts_;
  std::vector<std::string_view> views_;
  mutable std::unique_ptr<text::PieceIndex> index_;
};

}  // namespace omnima::bindings
