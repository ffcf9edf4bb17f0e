// The scheduler against the engine: the same texts whatever is beside them, and how requests wait,
// end and are refused.
#include "omnima/generate/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "omnima/core/error.h"
#include "omnima/generate/decode_state.h"
#include "omnima/generate/engine.h"
#include "tiny_models.h"

namespace omnima::generate {
namespace {

constexpr std::int64_t kVocab = 61, kContext = 400;
using std::chrono_literals::operator""s;

struct Tiny {
  explicit Tiny(const models::Changes& changes = {})
      : model(tiny_config(changes, kVocab, kContext), 3),
        engine(model.config(), parameters_of(model)) {}
  models::Decoder model;
  Engine engine;
};

Request ask(std::uint64_t seed, std::int64_t prompt, std::int64_t tokens, double temperature = 0) {
  Request request;
  request.prompt = random_ids(seed, prompt, kVocab);
  request.options.max_new_tokens = tokens;
  request.options.temperature = temperature;
  request.options.seeds = {seed};
  return request;
}

struct Answer {
  Ids ids;
  std::vector<TokenLogprob> logprobs;
  std::string reason, error;
  std::int64_t cached = 0;
};
using Answers = std::map<std::uint64_t, Answer>;

// Hears events until these have ended.
void hear(Scheduler& scheduler, Answers& answers, const std::vector<std::uint64_t>& until) {
  const auto ended = [&](std::uint64_t id) { return !answers[id].reason.empty(); };
  while (!std::ranges::all_of(until, ended)) {
    const auto events = scheduler.events(20s);
    ASSERT_FALSE(events.empty());
    for (const Event& event : events) {
      Answer& answer = answers[event.request];
      ASSERT_TRUE(answer.reason.empty()) << "an event after the last";
      answer.ids.insert(answer.ids.end(), event.ids.begin(), event.ids.end());
      for (const auto& each : event.logprobs) answer.logprobs.push_back(each);
      answer.reason = event.finish_reason;
      answer.error = event.error;
      answer.cached = std::max(answer.cached, event.cached);
    }
  }
}

Answer alone(const Engine& engine, const Request& request, const SchedulerOptions& options = {}) {
  Scheduler scheduler(engine, options);
  Answers answers;
  const auto id = scheduler.submit(request);
  hear(scheduler, answers, {id});
  return answers[id];
}

TEST(Scheduler, WritesWhatTheEngineWrites) {
  const Tiny tiny;
  for (const double temperature : {0.0, 0.9}) {
    const Request request = ask(5, 20, 30, temperature);
    GenerateOptions options = request.options;
    const auto wanted = tiny.engine.generate({request.prompt}, options, {}).front();
    const Answer found = alone(tiny.engine, request);
    EXPECT_EQ(found.ids, wanted.ids);
    EXPECT_EQ(found.reason, "length");
  }
}

void check_neighbours(const models::Changes& changes, const BatchOptions& of_batch) {
  const Tiny tiny(changes);
  SchedulerOptions options;
  options.batch = of_batch;
  options.batch.max_sequences = 5;
  options.batch.chunk_tokens = 2 * kPageTokens;
  options.batch.kept_bytes = 0;
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 14; ++i) {
    requests.push_back(ask(i, 1 + static_cast<std::int64_t>(i * 29 % 200),
                           3 + static_cast<std::int64_t>(i % 5) * 7, i % 2 == 0 ? 0.0 : 1.0));
    requests.back().top_logprobs = 0;
  }
  std::vector<Answer> wanted;
  for (const Request& request : requests) wanted.push_back(alone(tiny.engine, request, options));
  Scheduler scheduler(tiny.engine, options);
  Answers answers;
  std::vector<std::uint64_t> ids;
  for (const Request& request : requests) ids.push_back(scheduler.submit(request));
  hear(scheduler, answers, ids);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(answers[ids[i]].ids, wanted[i].ids) << i;
    EXPECT_EQ(answers[ids[i]].reason, wanted[i].reason) << i;
    for (std::size_t j = 0; j < wanted[i].logprobs.size(); ++j) {
      EXPECT_EQ(answers[ids[i]].logprobs[j].logprob, wanted[i].logprobs[j].logprob) << i;
    }
  }
  const auto stats = scheduler.stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.memory.texts, 0);
}

TEST(Scheduler, ATextDoesNotDependOnItsNeighbours) {
  for (const models::Changes& changes : std::vector<models::Changes>{
           {},
           {{"sliding_window", std::int64_t{71}}, {"num_key_value_heads", std::int64_t{1}}},
           {{"positions", std::string("relative")}},
           {{"num_experts", std::int64_t{4}}, {"num_experts_per_tok", std::int64_t{2}}}}) {
    for (const char* prompts : {"fp32", "bf16"}) {
      BatchOptions options;
      options.prompt_precision = prompts;
      options.tokens_at_once = 150;
      check_neighbours(changes, options);
    }
  }
}

TEST(Scheduler, PiecesThatAreReadTogetherAreReadToBfloat16) {
  const Tiny tiny;
  SchedulerOptions halves;
  halves.batch.prompt_precision = "bf16";
  for (const std::int64_t count : {1, 20, 33, 200}) {
    Request request = ask(3, count, 1);
    request.top_logprobs = kVocab;
    const Answer exact = alone(tiny.engine, request), rounded = alone(tiny.engine, request, halves);
    std::map<std::int64_t, float> wanted;
    for (const auto& [id, logprob] : exact.logprobs.at(0).top) wanted[id] = logprob;
    double apart = 0;
    for (const auto& [id, logprob] : rounded.logprobs.at(0).top) {
      apart = std::max(apart, std::abs(double{logprob} - wanted.at(id)));
    }
    EXPECT_GT(apart, 0) << count;
    EXPECT_LT(apart, 0.02) << count;
  }
}

TEST(Scheduler, WhatAPromptSharesIsReadOnceAndChangesNothing) {
  for (const models::Changes& changes : std::vector<models::Changes>{
           {}, {{"sliding_window", std::int64_t{71}}}, {{"positions", std::string("relative")}}}) {
    const Tiny tiny(changes);
    SchedulerOptions options, without;
    for (auto* each : {&options, &without}) each->batch.chunk_tokens = kPageTokens;
    without.batch.kept_bytes = 0;
    std::vector<Request> requests;
    for (std::uint64_t i = 0; i < 6; ++i) {
      Request request = ask(1, 200, 10, 1.0);  // the first 200 tokens are the same
      const Ids own = random_ids(50 + i, static_cast<std::int64_t>(3 + 20 * i), kVocab);
      request.prompt.insert(request.prompt.end(), own.begin(), own.end());
      requests.push_back(request);
    }
    Scheduler scheduler(tiny.engine, options);
    for (int round = 0; round < 2; ++round) {
      Answers answers;
      std::vector<std::uint64_t> ids;
      for (const Request& request : requests) ids.push_back(scheduler.submit(request));
      hear(scheduler, answers, ids);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        EXPECT_EQ(answers[ids[i]].ids, alone(tiny.engine, requests[i], without).ids) << i;
        // Six pieces, but for the one who was the first to read them; later all that is whole.
        const auto whole = std::ssize(requests[i].prompt) / kPageTokens * kPageTokens;
        if (round == 1) {
          EXPECT_EQ(answers[ids[i]].cached, whole);
        }
      }
    }
    const auto stats = scheduler.stats();
    // Once the six that all begin with, and what each has for itself.
    EXPECT_EQ(stats.memory.texts, 0);
    EXPECT_EQ(stats.memory.kept, 6 + 1 + 2 + 2 + 3);
    EXPECT_GT(stats.counts.cached_tokens, 6 * 192 + 5 * 192 - 1);
  }
}

TEST(Scheduler, SharedPiecesFollowTheWeights) {
  Tiny tiny;
  Scheduler scheduler(tiny.engine, {});
  const Request request = ask(4, 150, 5);
  Answers answers;
  auto id = scheduler.submit(request);
  hear(scheduler, answers, {id});
  tiny.model.named_parameters().back().second.detach().mul_(1.5);
  id = scheduler.submit(request);
  hear(scheduler, answers, {id});
  EXPECT_EQ(answers[id].cached, 0);
  EXPECT_EQ(answers[id].ids, alone(tiny.engine, request).ids);
}

TEST(Scheduler, LetsInWhatMemoryHolds) {
  const Tiny tiny;
  const auto page = PageLayout(tiny.model.config(), kernels::CacheFormat::kFloat32).page_bytes();
  SchedulerOptions options;
  options.batch.memory_bytes = 10 * page;
  Scheduler scheduler(tiny.engine, options);
  const auto too_long = [&] { scheduler.submit(ask(1, 300, 30)); };
  EXPECT_THROW(too_long(), core::ConfigError);
  std::vector<std::uint64_t> ids;
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 9; ++i) {  // two to ten pages each
    requests.push_back(ask(i, 20 + static_cast<std::int64_t>(i) * 33, 20));
    ids.push_back(scheduler.submit(requests.back()));
  }
  Answers answers;
  std::int64_t most = 0;
  while (!std::ranges::all_of(ids, [&](auto id) { return !answers[id].reason.empty(); })) {
    for (const Event& event : scheduler.events(20s)) {
      answers[event.request].reason = event.finish_reason;
      auto& all = answers[event.request].ids;
      all.insert(all.end(), event.ids.begin(), event.ids.end());
    }
    const auto stats = scheduler.stats();
    most = std::max(most, stats.memory.texts + stats.memory.kept);
  }
  EXPECT_LE(most, 10);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(answers[ids[i]].reason, "length");
    EXPECT_EQ(answers[ids[i]].ids, alone(tiny.engine, requests[i]).ids);
  }
}

TEST(Scheduler, WhatIsKeptStaysWhereForgettingItIsNotEnough) {
  const Tiny tiny;
  const auto page = PageLayout(tiny.model.config(), kernels::CacheFormat::kFloat32).page_bytes();
  SchedulerOptions options;
  options.batch.memory_bytes = 18 * page;
  Scheduler scheduler(tiny.engine, options);
  Answers answers;
  const Request first = ask(1, 140, 2);  // keeps four pages
  auto id = scheduler.submit(first);
  hear(scheduler, answers, {id});
  const auto running = scheduler.submit(ask(2, 5, 380));  // thirteen
  const auto waiting = scheduler.submit(ask(3, 5, 380));  // for which these are too few
  while (scheduler.stats().running == 0 || scheduler.stats().counts.steps < 20) {
    std::this_thread::yield();
  }
  EXPECT_EQ(scheduler.stats().memory.kept, 4);
  scheduler.cancel(waiting);
  scheduler.cancel(running);
  hear(scheduler, answers, {running, waiting});
  id = scheduler.submit(first);
  hear(scheduler, answers, {id});
  EXPECT_EQ(answers[id].cached, 128);
}

TEST(Scheduler, OneWhoAsksForMuchDoesNotHoldUpOthers) {
  const Tiny tiny;
  SchedulerOptions options;
  options.batch.max_sequences = 1;
  std::promise<void> asked;
  std::shared_future<void> all(asked.get_future());
  const Constrain wait_for_all = [all](auto requests, auto, std::span<std::int32_t> masks) {
    all.wait();
    std::ranges::fill(masks, -1);
    return std::vector<std::string>(requests.size());
  };
  Scheduler scheduler(tiny.engine, options, wait_for_all);
  Request first = ask(0, 5, 1);
  first.constrained = true;
  scheduler.submit(first);
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 10; ++i) {
    Request request = ask(i, 5, 20);
    request.client = i < 7 ? 1 : 2;
    ids.push_back(scheduler.submit(request));
  }
  asked.set_value();
  std::vector<std::uint64_t> ended;
  while (ended.size() < 11) {
    for (const Event& event : scheduler.events(20s)) {
      if (!event.finish_reason.empty()) ended.push_back(event.request);
    }
  }
  ended.erase(ended.begin());
  const std::vector<std::uint64_t> wanted{ids[0], ids[7], ids[1], ids[8], ids[2],
                                          ids[9], ids[3], ids[4], ids[5], ids[6]};
  EXPECT_EQ(ended, wanted);
}

TEST(Scheduler, AnAnswerOfConstrainThatIsTooShortEndsItsTexts) {
  const Tiny tiny;
  const Constrain constrain = [](auto, auto, auto) { return std::vector<std::string>{}; };
  Scheduler scheduler(tiny.engine, {}, constrain);
  Request request = ask(1, 5, 5);
  request.constrained = true;
  const auto id = scheduler.submit(request);
  Answers answers;
  hear(scheduler, answers, {id});
  EXPECT_EQ(answers[id].reason, "error");
  EXPECT_NE(answers[id].error.find("one for each"), std::string::npos);
}

TEST(Scheduler, TablesThatFollowALengthGoWithTheirTexts) {
  const Tiny tiny({{"rope_scaling", std::string("dynamic")},
                   {"rope_factor", 3.0},
                   {"rope_original_context", std::int64_t{50}}});
  Scheduler scheduler(tiny.engine, {});
  Answers answers;
  std::vector<Request> requests;
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 6; ++i) {
    requests.push_back(ask(i, 20 + 30 * static_cast<std::int64_t>(i), 10));
    ids.push_back(scheduler.submit(requests.back()));
  }
  hear(scheduler, answers, ids);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(answers[ids[i]].ids, alone(tiny.engine, requests[i]).ids) << i;
    GenerateOptions same = requests[i].options;
    EXPECT_EQ(answers[ids[i]].ids, tiny.engine.generate({requests[i].prompt}, same, {}).front().ids)
        << i;
  }
}

TEST(Scheduler, EndsByItsStopTokensAndWithItsContext) {
  const Tiny tiny;
  Request request = ask(9, 10, 1000);
  const Answer all = alone(tiny.engine, request);
  EXPECT_EQ(all.reason, "length");
  EXPECT_EQ(std::ssize(all.ids), kContext - 10);
  request.options.stop_ids = {all.ids[7]};
  const Answer some = alone(tiny.engine, request);
  EXPECT_EQ(some.reason, "eos");
  const auto first = std::find(all.ids.begin(), all.ids.end(), all.ids[7]);
  EXPECT_EQ(some.ids, Ids(all.ids.begin(), first + 1));
}

TEST(Scheduler, SaysTheLogprobsOfTheModel) {
  const Tiny tiny;
  Request request = ask(2, 12, 6, 1.5);
  request.options.top_k = 3;
  request.top_logprobs = 4;
  const Answer answer = alone(tiny.engine, request);
  ASSERT_EQ(answer.logprobs.size(), 6u);
  Ids ids = request.prompt;
  ids.insert(ids.end(), answer.ids.begin(), answer.ids.end());
  const at::Tensor logits = tiny.engine.logits(ids, true);
  for (std::size_t i = 0; i < answer.ids.size(); ++i) {
    const float* row = logits.const_data_ptr<float>() + (11 + static_cast<int>(i)) * kVocab;
    double sum = 0;
    for (int j = 0; j < kVocab; ++j) sum += std::exp(static_cast<double>(row[j]));
    EXPECT_NEAR(answer.logprobs[i].logprob, row[answer.ids[i]] - std::log(sum), 1e-4);
    ASSERT_EQ(answer.logprobs[i].top.size(), 4u);
    EXPECT_EQ(answer.logprobs[i].top[0].first, std::max_element(row, row + kVocab) - row);
    for (std::size_t j = 0; j < 4; ++j) {
      const auto [id, logprob] = answer.logprobs[i].top[j];
      EXPECT_NEAR(logprob, row[id] - std::log(sum), 1e-4);
      if (j > 0) {
        EXPECT_LE(logprob, answer.logprobs[i].top[j - 1].second);
      }
    }
  }
}

TEST(Scheduler, ACancelledRequestEndsWhereverItIs) {
  const Tiny tiny;
  SchedulerOptions options;
  options.batch.max_sequences = 1;
  Scheduler scheduler(tiny.engine, options);
  const auto running = scheduler.submit(ask(1, 5, 390));
  const auto waiting = scheduler.submit(ask(2, 5, 10));
  const auto last = scheduler.submit(ask(3, 5, 10));
  EXPECT_TRUE(scheduler.cancel(waiting));
  EXPECT_TRUE(scheduler.cancel(running));
  EXPECT_FALSE(scheduler.cancel(12345));
  Answers answers;
  hear(scheduler, answers, {running, waiting, last});
  EXPECT_EQ(answers[waiting].reason, "cancelled");
  EXPECT_EQ(answers[running].reason, "cancelled");
  EXPECT_LT(std::ssize(answers[running].ids), 390);
  EXPECT_EQ(answers[last].reason, "length");
  EXPECT_FALSE(scheduler.cancel(running));
  EXPECT_EQ(scheduler.stats().running, 0);
}

TEST(Scheduler, RefusesWhatCannotBeAnsweredAndWhatIsTooMuch) {
  const Tiny tiny;
  SchedulerOptions options;
  options.batch.max_sequences = 1;
  options.max_waiting = 2;
  Scheduler scheduler(tiny.engine, options);
  EXPECT_THROW(scheduler.submit(ask(1, 0, 5)), core::ConfigError);
  EXPECT_THROW(scheduler.submit(ask(1, kContext, 5)), core::ConfigError);
  Request wrong = ask(1, 5, 5);
  wrong.prompt[2] = kVocab;
  EXPECT_THROW(scheduler.submit(wrong), core::ConfigError);
  wrong = ask(1, 5, 5);
  wrong.options.stop_ids = {-1};
  EXPECT_THROW(scheduler.submit(wrong), core::ConfigError);
  wrong = ask(1, 5, 5);
  wrong.constrained = true;
  EXPECT_THROW(scheduler.submit(wrong), core::ConfigError);
  std::vector<std::uint64_t> ids;
  const auto fill = [&] {
    for (int i = 0; i < 50; ++i) ids.push_back(scheduler.submit(ask(1, 5, 300)));
  };
  EXPECT_THROW(fill(), core::QueueFullError);
  EXPECT_GE(ids.size(), 2u);
  EXPECT_LE(ids.size(), 8u);  // some may have ended meanwhile
  scheduler.close();
  Answers answers;
  for (const Event& event : scheduler.events(0s)) {
    if (!event.finish_reason.empty()) answers[event.request].reason = event.finish_reason;
  }
  for (const auto id : ids) EXPECT_FALSE(answers[id].reason.empty());
  EXPECT_THROW(scheduler.submit(ask(1, 5, 5)), core::Error);
}

TEST(Scheduler, AsksWhichTokensMayFollowConstrainedTexts) {
  const Tiny tiny;
  // Even and odd ids in turn, and an error after six.
  std::map<std::uint64_t, int> asked;
  const Constrain constrain = [&](std::span<const std::uint64_t> requests,
                                  std::span<const std::int64_t> newest,
                                  std::span<std::int32_t> masks) {
    std::vector<std::string> errors(requests.size());
    const std::size_t words = masks.size() / requests.size();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const int turn = asked[requests[i]]++;
      EXPECT_EQ(newest[i] < 0, turn == 0);
      if (turn == 6) errors[i] = "enough";
      const auto bits = static_cast<std::int32_t>(turn % 2 == 0 ? 0x55555555u : 0xaaaaaaaau);
      std::fill_n(masks.begin() + static_cast<std::ptrdiff_t>(i * words), words, bits);
    }
    return errors;
  };
  Scheduler scheduler(tiny.engine, {}, constrain);
  Answers answers;
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 4; ++i) {
    Request request = ask(i, 10, i < 2 ? 5 : 20, i % 2 == 0 ? 0.0 : 1.0);
    request.constrained = i != 3;
    ids.push_back(scheduler.submit(request));
  }
  hear(scheduler, answers, ids);
  for (int i = 0; i < 3; ++i) {
    const Ids& text = answers[ids[i]].ids;
    for (std::size_t j = 0; j < text.size(); ++j) {
      EXPECT_EQ(text[j] % 2, static_cast<std::int64_t>(j % 2));
    }
  }
  EXPECT_EQ(answers[ids[0]].reason, "length");
  EXPECT_EQ(answers[ids[2]].reason, "error");
  EXPECT_EQ(answers[ids[2]].error, "enough");
  EXPECT_EQ(answers[ids[2]].ids.size(), 6u);
  EXPECT_EQ(answers[ids[3]].ids, alone(tiny.engine, ask(3, 10, 20, 1.0)).ids);
}

TEST(Scheduler, AModelThatIsNotFiniteEndsItsTextsAndNotTheScheduler) {
  Tiny tiny;
  tiny.model.named_parameters().front().second.detach().fill_(std::nanf(""));
  Scheduler scheduler(tiny.engine, {});
  Answers answers;
  for (int i = 0; i < 2; ++i) {
    const auto id = scheduler.submit(ask(1, 5, 5));
    hear(scheduler, answers, {id});
    EXPECT_EQ(answers[id].reason, "error");
    EXPECT_NE(answers[id].error.find("not finite"), std::string::npos) << answers[id].error;
  }
}

}  // namespace
}  // namespace omnima::generate
