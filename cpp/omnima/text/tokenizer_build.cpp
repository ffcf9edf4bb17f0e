// A tokenizer out of the lists of a file, built beside what else is to be done.
#include "omnima/text/tokenizer_build.h"

#include <unistd.h>

#include <chrono>
#include <system_error>
#include <utility>

#include "omnima/core/error.h"
#include "omnima/text/merge_lines.h"
#include "omnima/text/piece_index.h"

namespace omnima::text {

std::shared_ptr<Tokenizer> tokenizer_of_lists(Vocabulary vocabulary,
                                              std::span<const std::string_view> pieces,
                                              std::span<const std::string_view> merge_lines) {
  const PieceIndex index(pieces);
  core::require<core::DataError>(!index.holds_twice(), "the list of tokens holds a token twice");
  vocabulary.merges = merges_of_lines(index, merge_lines);
  vocabulary.spelled_well = true;
  vocabulary.pieces.assign(pieces.begin(), pieces.end());
  return std::make_shared<Tokenizer>(std::move(vocabulary));
}

TokenizerBuild::TokenizerBuild(Make make) : make_(std::move(make)), process_(::getpid()) {
  std::packaged_task<std::shared_ptr<Tokenizer>()> task(make_);
  made_ = task.get_future().share();
  try {
    thread_ = std::thread(std::move(task));
  } catch (const std::system_error&) {
    // A system that has no thread to spare: get() does all of it.
    made_ = std::async(std::launch::deferred, make_).share();
  }
}

TokenizerBuild::~TokenizerBuild() {
  if (!thread_.joinable()) return;
  is_here() ? thread_.join() : thread_.detach();
}

bool TokenizerBuild::is_here() const { return ::getpid() == process_; }

std::shared_ptr<Tokenizer> TokenizerBuild::get() const {
  const bool lost =
      !is_here() && made_.wait_for(std::chrono::seconds(0)) == std::future_status::timeout;
  return lost ? make_() : made_.get();
}

}  // namespace omnima::text
