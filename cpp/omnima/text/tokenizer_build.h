// A tokenizer out of the lists of a file, built beside what else is to be done.
#pragma once

#include <sys/types.h>

#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string_view>
#include <thread>

#include "omnima/text/tokenizer.h"

namespace omnima::text {

// A BPE tokenizer of these pieces, valid UTF-8, none of which may stand twice, and of merges as
// lines (merge_lines.h); `vocabulary` has the rest. Throws DataError.
std::shared_ptr<Tokenizer> tokenizer_of_lists(Vocabulary vocabulary,
                                              std::span<const std::string_view> pieces,
                                              std::span<const std::string_view> merge_lines);

// Runs `make` in a thread of its own from now on.
class TokenizerBuild {
 public:
  using Make = std::function<std::shared_ptr<Tokenizer>()>;

  explicit TokenizerBuild(Make make);
  // Waits for the thread.
  ~TokenizerBuild();
  TokenizerBuild(const TokenizerBuild&) = delete;
  TokenizerBuild& operator=(const TokenizerBuild&) = delete;

  // What `make` gave, or threw, at every call; waits for it.
  std::shared_ptr<Tokenizer> get() const;

 private:
  bool is_here() const;

  Make make_;
  std::shared_future<std::shared_ptr<Tokenizer>> made_;
  std::thread thread_;
  pid_t process_;  // that the thread is in: a fork of it has no such thread
};

}  // namespace omnima::text
