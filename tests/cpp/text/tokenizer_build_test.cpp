// Tokenizers out of lists, built in a thread.
#include "omnima/text/tokenizer_build.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include "omnima/core/error.h"
#include "omnima/text/vocabulary.h"

namespace omnima::text {
namespace {

using Views = std::vector<std::string_view>;

// The printable ASCII characters, which every text needs, and "th" and "the".
const Views& pieces() {
  static const auto* texts = [] {
    auto* all = new std::vector<std::string>{"Ġ"};
    for (char byte = '!'; byte <= '~'; ++byte) all->push_back(std::string(1, byte));
    all->push_back("th");
    all->push_back("the");
    return all;
  }();
  static const Views views(texts->begin(), texts->end());
  return views;
}

Vocabulary rest(std::size_t count) {
  Vocabulary vocabulary;
  vocabulary.roles.assign(count, Role::kText);
  vocabulary.pattern = pattern_of("gpt2");
  return vocabulary;
}

std::shared_ptr<Tokenizer> small() {
  return tokenizer_of_lists(rest(pieces().size()), pieces(), Views{"t h", "th e"});
}

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const core::DataError& error) {
    return error.what();
  }
  return "none";
}

TEST(TokenizerOfLists, IsThatOfItsVocabulary) {
  const auto tokenizer = small();
  const auto the = static_cast<Id>(pieces().size() - 1);
  std::vector<Id> ids;
  tokenizer->encode("the ~", ids);
  EXPECT_EQ(ids, std::vector<Id>({the, 0, static_cast<Id>('~' - '!' + 1)}));
  EXPECT_EQ(tokenizer->decode(ids), "the ~");
  ASSERT_EQ(tokenizer->vocabulary().merges.size(), 2u);
  EXPECT_EQ(tokenizer->vocabulary().merges[1].result, the);
}

TEST(TokenizerOfLists, RefusesDamagedLists) {
  Views twice = pieces();
  twice.push_back("the");
  EXPECT_EQ(refusal([&] { tokenizer_of_lists(rest(twice.size()), twice, Views{}); }),
            "the list of tokens holds a token twice");
  EXPECT_EQ(refusal([&] { tokenizer_of_lists(rest(pieces().size()), pieces(), Views{"t zz"}); }),
            "the merge 't zz' is not of tokens that are there");
  Views foreign = pieces();
  foreign.push_back("我");
  EXPECT_NE(refusal([&] {
              tokenizer_of_lists(rest(foreign.size()), foreign, Views{});
            }).find("a character that stands for no byte"),
            std::string::npos);
}

TEST(TokenizerBuild, IsWaitedForAndGivesTheSameEveryTime) {
  std::atomic<bool> may_end{false};
  const TokenizerBuild build([&] {
    while (!may_end) std::this_thread::yield();
    return small();
  });
  may_end = true;
  const auto first = build.get();
  EXPECT_EQ(first->size(), pieces().size());
  EXPECT_EQ(build.get(), first);
}

TEST(TokenizerBuild, ThrowsWhatWentWrongEveryTime) {
  const TokenizerBuild build(
      []() -> std::shared_ptr<Tokenizer> { throw core::DataError("the lists are damaged"); });
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(refusal([&] { build.get(); }), "the lists are damaged");
  }
}

TEST(TokenizerBuild, DroppedBeforeItsEndWaitsForTheThread) {
  std::atomic<bool> ended{false};
  {
    const TokenizerBuild build([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      ended = true;
      return small();
    });
  }
  EXPECT_TRUE(ended);
}

TEST(TokenizerBuild, IsMadeAnewInAForkThatLacksTheThread) {
  std::atomic<bool> may_end{false};
  const pid_t parent = getpid();
  const TokenizerBuild build([&] {
    while (getpid() == parent && !may_end) std::this_thread::yield();
    return small();
  });
  const pid_t child = fork();
  if (child == 0) _exit(build.get()->size() == pieces().size() ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  may_end = true;
  EXPECT_EQ(status, 0);
  EXPECT_EQ(build.get()->size(), pieces().size());
}

}  // namespace
}  // namespace omnima::text
