// Generation on the emulated device beside the CPU's: logits, texts, batches, speculation, stored
// formats, and when a step is recorded.
#include "omnima/generate/cuda/device_runner.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <stdexcept>

#include "../../models/families.h"
#include "../tiny_models.h"
#include "emulated_cuda/seams.h"
#include "omnima/core/error.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/sampler.h"
#include "omnima/generate/scheduler.h"
#include "omnima/kernels/cuda/decode_gemv.h"
#include "omnima/models/decoder.h"
#include "omnima/quant/convert.h"

namespace omnima::generate {
namespace {

using models::Changes;
using ops::cuda::AsDevice;
constexpr std::int64_t kVocab = 61, kContext = 48;

models::Decoder model_of(const Changes& changes = {}, std::uint64_t seed = 3) {
  return models::Decoder(tiny_config(changes, kVocab, kContext), seed);
}

Ids random_ids(std::uint64_t seed, std::int64_t count) {
  return generate::random_ids(seed, count, kVocab);
}

// The same parameters for both: what lies on the "device" is read where it lies.
struct Pair {
  explicit Pair(const models::DecoderConfig& config, const Parameters& parameters,
                const Formats& formats = {}, const HeadOrder& order = {})
      : cpu(config, parameters, formats, Activations::kFloat32, order) {
    const AsDevice device_here;
    device = std::make_unique<Engine>(config, parameters, formats, Activations::kFloat32, order);
  }
  explicit Pair(const models::Decoder& model) : Pair(model.config(), parameters_of(model)) {}

  Engine cpu;
  std::unique_ptr<Engine> device;
};

float most_apart(const Pair& pair, const Ids& ids, bool stepwise, bool bf16 = false) {
  const at::Tensor wanted = pair.cpu.logits(ids, true);
  const AsDevice device;
  return (pair.device->logits(ids, stepwise, bf16) - wanted).abs().max().item<float>();
}

std::vector<Written> write(const Engine& engine, const std::vector<Ids>& prompts,
                           GenerateOptions options, const Engine* draft = nullptr) {
  for (std::size_t i = 0; i < prompts.size(); ++i) options.seeds.push_back(100 + i);
  return engine.generate(prompts, options, {}, draft);
}

void expect_same_text(const Pair& pair, const std::vector<Ids>& prompts,
                      const GenerateOptions& options, const Pair* draft = nullptr) {
  const auto wanted = write(pair.cpu, prompts, options, draft ? &draft->cpu : nullptr);
  const AsDevice device;
  const auto got = write(*pair.device, prompts, options, draft ? draft->device.get() : nullptr);
  for (std::size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(got[i].ids, wanted[i].ids) << i;
}

bool runs_there(const Changes& changes) {
  return why_not_on_device(model_of(changes).config()).empty();
}

TEST(DeviceEngine, LogitsAreTheCpusForEveryFamily) {
  int families = 0;
  for (const Changes& changes : models::families()) {
    if (!runs_there(changes)) continue;
    ++families;
    const Pair pair(model_of(changes));
    for (const std::int64_t count : {std::int64_t{1}, std::int64_t{9}, kContext}) {
      for (const bool stepwise : {false, true}) {
        EXPECT_LT(most_apart(pair, random_ids(7, count), stepwise), 1e-4f)
            << "family " << families << ", " << count << " tokens, " << stepwise;
      }
    }
  }
  EXPECT_EQ(families, 15);
}

TEST(DeviceEngine, SaysWhatItCannotDo) {
  const AsDevice device;
  for (const auto& [changes, why] : std::vector<std::pair<Changes, std::string>>{
           {{{"num_experts", std::int64_t{4}}}, "it has experts"},
           {{{"blocksparse_block_size", std::int64_t{4}}}, "block-sparse"},
           {{{"head_dim", std::int64_t{258}}}, "more than 256 numbers"}}) {
    const auto model = model_of(changes);
    try {
      Engine(model.config(), parameters_of(model));
      ADD_FAILURE() << why;
    } catch (const core::ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("Write on the CPU"), std::string::npos);
    }
  }
}

TEST(DeviceEngine, ContextsLongerThanAStretchOfAttention) {
  const Changes longer{{"max_position_embeddings", std::int64_t{600}},
                       {"num_key_value_heads", std::int64_t{2}},
                       {"num_hidden_layers", std::int64_t{1}}};
  const Pair pair(model_of(longer));
  EXPECT_LT(most_apart(pair, random_ids(1, 530), false), 1e-4f);
  GenerateOptions options;
  options.max_new_tokens = 20;
  expect_same_text(pair, {random_ids(2, 250), random_ids(3, 3), random_ids(4, 505)}, options);
}

TEST(DeviceEngine, WritesTheCpusTextInBatchesOfAnyLengths) {
  for (const std::size_t family : {0, 1, 3, 9, 17}) {
    const Changes changes = models::families()[family];
    const Pair pair(model_of(changes));
    std::vector<Ids> prompts;
    for (std::uint64_t i = 0; i < 11; ++i) {
      prompts.push_back(random_ids(i, 1 + static_cast<std::int64_t>(i * 4 % 37)));
    }
    GenerateOptions options;
    options.max_new_tokens = 12;
    options.stop_ids = {5, 6, 7, 8};  // sequences leave one by one
    expect_same_text(pair, prompts, options);
    options.temperature = 0.8;
    options.top_p = 0.9;
    expect_same_text(pair, {prompts.begin(), prompts.begin() + 3}, options);
  }
}

TEST(DeviceEngine, GuessingAheadChangesNothing) {
  const Pair pair(model_of()), draft(model_of({{"num_hidden_layers", std::int64_t{1}}}));
  Ids repeats = random_ids(3, 6);
  for (int i = 0; i < 12; ++i) repeats.push_back(repeats[static_cast<std::size_t>(i)]);
  GenerateOptions options;
  options.max_new_tokens = 20;
  options.speculative_tokens = 5;
  expect_same_text(pair, {repeats, random_ids(2, 4)}, options);
  expect_same_text(pair, {repeats, random_ids(2, 4)}, options, &draft);
}

TEST(DeviceEngine, ComputesWithStoredFormats) {
  for (const char* format : {"f32", "bf16", "f16", "q8_0", "q4_0", "q4_1", "int8_g64", "int8_g32",
                             "int4_g32", "int4_g64", "int4z_g64", "q5_0", "nf4_g32x4"}) {
    const auto model = model_of({{"hidden_size", std::int64_t{64}},
                                 {"intermediate_size", std::int64_t{128}},
                                 {"num_key_value_heads", std::int64_t{2}}});
    const quant::Format& kind = quant::format_named(format);
    Parameters bytes;
    Formats formats;
    for (const auto& [name, tensor] : model.named_parameters()) {
      bytes[name] = tensor.detach();
      if (tensor.dim() != 2 || tensor.size(1) % kind.numbers != 0) continue;
      const std::string written = std::string(format) == "q4_1" ? "int4z_g32" : format;
      if (written == "q5_0") continue;
      bytes[name] = quant::quantized(quant::format_named(written), tensor);
      formats[name] = format;
    }
    const Pair pair(model.config(), bytes, formats);
    for (const bool stepwise : {false, true}) {
      EXPECT_LT(most_apart(pair, random_ids(9, 40), stepwise), 1e-4f) << format;
    }
    EXPECT_LT(most_apart(pair, random_ids(9, 40), false, /*bf16=*/true), 0.3f) << format;
  }
}

TEST(DeviceEngine, RowsOfHeadsMayLieInAnotherOrder) {
  const auto model = model_of({{"attention_bias", true}});
  const HeadOrder order{0, 4, 1, 5, 2, 6, 3, 7};
  const Pair pair(model.config(), parameters_of(model), {}, order);
  EXPECT_LT(most_apart(pair, random_ids(9, kContext), false), 1e-4f);
  EXPECT_LT(most_apart(pair, random_ids(9, 20), true), 1e-4f);
}

TEST(DeviceEngine, APromptOfFewTokensGivesTheBitsOfSteps) {
  for (const Changes& changes : models::families()) {
    if (!runs_there(changes)) continue;
    // ATen's own functions of single numbers depend on their place in a vector on the CPU.
    const auto model = model_of(changes);
    const auto& c = model.config();
    if (c.logit_softcap > 0 || c.activation == "relu2" || c.activation.starts_with("geglu"))
      continue;
    const Pair pair(model);
    const Ids ids = random_ids(9, 20);
    const AsDevice device;
    EXPECT_TRUE(at::equal(pair.device->logits(ids, true), pair.device->logits(ids, false)))
        << c.activation << ' ' << c.positions << ' ' << c.norm << ' ' << c.rope_scaling;
  }
}

TEST(DeviceEngine, FollowsTheModelsTraining) {
  const auto model = model_of();
  const Pair pair(model);
  for (const auto& [name, tensor] : model.named_parameters()) tensor.detach().mul_(1.25);
  EXPECT_LT(most_apart(pair, random_ids(9, 20), true), 1e-4f);
}

TEST(DeviceMatrix, HoldsTheNumbersOfItsFormat) {
  const at::Tensor numbers = model_of().named_parameters()[0].second.detach().clone();
  for (const quant::Format* format : quant::formats()) {
    if (!format->quantize || numbers.size(1) % format->numbers != 0) continue;
    const at::Tensor bytes = quant::quantized(*format, numbers);
    const auto matrix = quant::matrix_of(*format, bytes, numbers.size(0), numbers.size(1));
    const auto moved = cuda::device_matrix(matrix, at::kCPU);
    const at::Tensor out = at::empty(numbers.sizes(), at::kFloat);
    kernels::cuda::unpack_rows(moved.matrix, 0, numbers.size(0), out.mutable_data_ptr<float>(),
                               nullptr);
    EXPECT_TRUE(at::equal(out, quant::dequantized_rows(matrix, 0, numbers.size(0))))
        << format->name;
  }
}

Request ask(std::uint64_t seed, std::int64_t prompt, std::int64_t tokens) {
  Request request;
  request.prompt = random_ids(seed, prompt);
  request.options.max_new_tokens = tokens;
  request.options.seeds = {seed};
  return request;
}

// What happens until so many have ended.
std::vector<Event> hear(Scheduler& scheduler, std::int64_t ends) {
  std::vector<Event> all;
  while (ends > 0) {
    const auto events = scheduler.events(std::chrono::seconds(20));
    if (events.empty()) throw std::runtime_error("no event for 20 seconds");
    for (const Event& event : events) ends -= event.finish_reason.empty() ? 0 : 1;
    all.insert(all.end(), events.begin(), events.end());
  }
  return all;
}

TEST(DeviceScheduler, WritesTheEnginesTexts) {
  const Pair pair(model_of());
  const AsDevice device;
  SchedulerOptions options;
  options.batch.max_sequences = 3;
  Scheduler scheduler(*pair.device, options);
  std::map<std::uint64_t, Ids> wanted, got;
  for (std::uint64_t i = 0; i < 8; ++i) {
    const Request request = ask(i, 1 + static_cast<std::int64_t>(i) * 5, 8);
    wanted[scheduler.submit(request)] =
        pair.cpu.generate({request.prompt}, request.options, {})[0].ids;
  }
  for (const Event& event : hear(scheduler, 8)) {
    EXPECT_EQ(event.error, "");
    EXPECT_EQ(event.cached, 0);
    got[event.request].insert(got[event.request].end(), event.ids.begin(), event.ids.end());
  }
  EXPECT_EQ(got, wanted);
}

TEST(DeviceScheduler, LetsInWhatMemoryHolds) {
  const Pair pair(model_of());
  const AsDevice device;
  SchedulerOptions options;
  options.batch.memory_bytes = 3 * pair.device->page_bytes("fp32");
  Scheduler scheduler(*pair.device, options);
  EXPECT_EQ(scheduler.stats().memory.most, 3);
  for (std::uint64_t i = 0; i < 4; ++i) scheduler.submit(ask(i, 30, 10));  // two pages each
  std::vector<std::uint64_t> order;
  for (const Event& event : hear(scheduler, 4)) order.push_back(event.request);
  EXPECT_EQ(order.size(), 40u);
  EXPECT_TRUE(std::ranges::is_sorted(order));  // one behind the other
  scheduler.close();
  EXPECT_EQ(scheduler.stats().memory.texts, 0);
}

TEST(DeviceScheduler, RefusesWhatNeverFits) {
  const Pair pair(model_of());
  const AsDevice device;
  SchedulerOptions options;
  options.batch.memory_bytes = pair.device->page_bytes("fp32");
  Scheduler scheduler(*pair.device, options);
  EXPECT_THROW(scheduler.submit(ask(1, 30, 10)), core::ConfigError);
  scheduler.submit(ask(1, 30, 2));
  EXPECT_EQ(hear(scheduler, 1).back().finish_reason, "length");
}

TEST(DeviceRunner, RecordsTheSecondStepOfASize) {
  const auto model = model_of();
  const Pair pair(model);
  GenerateOptions options;
  options.max_new_tokens = 6;
  options.seeds = {1, 2, 3};
  const AsDevice device;
  const int before = cuda::recorded_steps();
  const auto written = pair.device->generate({{1, 2}, {3}, {4, 5, 6}}, options, {});
  EXPECT_EQ(cuda::recorded_steps(), before + 1);  // all steps have three rows, padded to four
  cuda::refuse_recordings(true);
  const auto launched = pair.device->generate({{1, 2}, {3}, {4, 5, 6}}, options, {});
  cuda::refuse_recordings(false);
  EXPECT_EQ(cuda::recorded_steps(), before + 1);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(launched[i].ids, written[i].ids);
}

TEST(DeviceRunner, StepsComeInFewSizes) {
  for (const auto& [rows, step] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 1}, {2, 2}, {3, 4}, {5, 8}, {8, 8}, {9, 16}, {64, 64}}) {
    EXPECT_EQ(cuda::rows_of_step(rows), step);
  }
}

}  // namespace
}  // namespace omnima::generate
