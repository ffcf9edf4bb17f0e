// Many texts that Python passes on without looking into them, such as the tokens of a file.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "omnima/text/piece_index.h"

namespace omnima::bindings {

class TextList {
 public:
  using Views = std::vector<std::string_view>;

  // Of texts that the same owner holds, such as a file's header.
  explicit TextList(std::shared_ptr<const Views> views) : views_(std::move(views)) {}
  explicit TextList(std::vector<std::string> texts) {
    struct Held {
      std::vector<std::string> texts;
      Views views;
    };
    auto held = std::make_shared<Held>(Held{std::move(texts), {}});
    held->views.assign(held->texts.begin(), held->texts.end());
    views_ = std::shared_ptr<const Views>(held, &held->views);
  }

  const std::shared_ptr<const Views>& views() const { return views_; }
  std::vector<std::string> texts() const { return {views_->begin(), views_->end()}; }
  bool holds_twice() const { return text::PieceIndex(*views_).holds_twice(); }

 private:
  std::shared_ptr<const Views> views_;
};

}  // namespace omnima::bindings
