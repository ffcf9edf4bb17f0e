// When a step is captured, replayed or run eagerly, with a device that only takes notes.
#include "omnima/train/step_graph.h"

#include <stdexcept>

#include "step_fixture.h"

namespace omnima::train {
namespace {

using Notes = std::vector<std::string>;

class FakeDevice final : public StepBackend {
 public:
  explicit FakeDevice(Notes& notes, bool refuses = false) : notes_(notes), refuses_(refuses) {}
  void stage(const std::vector<data::Batch>& batches) override {
    notes_.push_back("stage " + std::to_string(batches.size()));
  }
  void upload(const std::vector<data::Batch>& batches, const StepNumbers& numbers) override {
    notes_.push_back("upload " + std::to_string(batches.front().rows));
    step_ = numbers.step;
  }
  void run_eagerly() override { notes_.push_back("eager"); }
  void capture() override {
    if (refuses_) throw std::runtime_error("not today");
    notes_.push_back("capture");
  }
  void replay() override { notes_.push_back("replay"); }
  DeviceOutcome wait() override {
    notes_.push_back("wait");
    return {static_cast<double>(step_), 2.0, false};
  }

 private:
  Notes& notes_;
  bool refuses_;
  std::int64_t step_ = 0;
};

std::vector<data::Batch> alike(std::int64_t rows, std::int64_t count = 1) {
  return std::vector<data::Batch>(static_cast<std::size_t>(count), some_batch(rows, 8, 0));
}

std::vector<data::Batch> documents(std::int64_t rows) {
  auto batches = alike(rows);
  batches[0].segments.assign(static_cast<std::size_t>(rows * 8), 0);
  return batches;
}

Notes modes(GraphPolicy& policy, const std::vector<std::vector<data::Batch>>& steps) {
  Notes notes;
  for (const auto& step : steps) {
    const StepMode mode = policy.next(step);
    notes.push_back(mode == StepMode::kEager     ? "eager"
                    : mode == StepMode::kCapture ? "capture"
                                                 : "replay");
  }
  return notes;
}

TEST(StepShape, IsThatOfBatchesThatAreAlike) {
  EXPECT_EQ(shape_of(alike(2, 3)), (StepShape{3, 2, 8}));
  auto mixed = alike(2, 2);
  mixed[1] = some_batch(3, 8, 0);
  EXPECT_FALSE(shape_of(mixed));
  EXPECT_FALSE(shape_of(documents(2)));
  EXPECT_FALSE(shape_of({}));
}

TEST(GraphPolicy, CapturesTheSecondStepOfAShapeAndReplaysThen) {
  GraphPolicy policy;
  EXPECT_EQ(modes(policy, {alike(2), alike(2), alike(2), alike(2)}),
            (Notes{"eager", "capture", "replay", "replay"}));
}

TEST(GraphPolicy, OneOtherStepDoesNotLoseTheGraph) {
  GraphPolicy policy;
  EXPECT_EQ(modes(policy, {alike(2), alike(2), alike(3), alike(2), documents(2), alike(2)}),
            (Notes{"eager", "capture", "eager", "replay", "eager", "replay"}));
}

TEST(GraphPolicy, AnotherShapeTwiceInARowTakesTheGraph) {
  GraphPolicy policy;
  EXPECT_EQ(modes(policy, {alike(2), alike(2), alike(3), alike(3), alike(3), alike(2), alike(2)}),
            (Notes{"eager", "capture", "eager", "capture", "replay", "eager", "capture"}));
}

TEST(GraphPolicy, TheNumberOfBatchesBelongsToTheShape) {
  GraphPolicy policy;
  EXPECT_EQ(modes(policy, {alike(2), alike(2, 2), alike(2, 2), alike(2, 2)}),
            (Notes{"eager", "eager", "capture", "replay"}));
}

TEST(GraphPolicy, PackedDocumentsAndForbiddenGraphsRunEagerly) {
  GraphPolicy policy;
  EXPECT_EQ(modes(policy, {documents(2), documents(2), documents(2)}),
            (Notes{"eager", "eager", "eager"}));
  GraphPolicy forbidden("dropout");
  EXPECT_EQ(modes(forbidden, {alike(2), alike(2), alike(2)}), (Notes{"eager", "eager", "eager"}));
  EXPECT_EQ(forbidden.why_not(), "dropout");
}

TEST(DeviceStep, RunsTheBackendInOrder) {
  Notes notes;
  DeviceStep step(std::make_unique<FakeDevice>(notes), GraphPolicy());
  EXPECT_EQ(step.policy().describe(), "eager");
  for (std::int64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(step.run(alike(2), {i, 16, 1e-3, {0}}, {}).loss, static_cast<double>(i));
  }
  EXPECT_EQ(notes, (Notes{"upload 2", "eager", "wait", "upload 2", "capture", "replay", "wait",
                          "upload 2", "replay", "wait"}));
  EXPECT_EQ(step.policy().describe(), "captured");
}

TEST(DeviceStep, StagesWhatComesNextWhileTheDeviceWorks) {
  Notes notes;
  DeviceStep step(std::make_unique<FakeDevice>(notes), GraphPolicy());
  bool known = true;
  const auto lookahead = [&](std::vector<data::Batch>& ahead) {
    ahead = alike(2, 4);
    return known;
  };
  step.run(alike(2), {1, 16, 1e-3, {0}}, lookahead);
  known = false;
  step.run(alike(3), {2, 24, 1e-3, {0}}, lookahead);
  EXPECT_EQ(notes, (Notes{"upload 2", "eager", "stage 4", "wait", "upload 3", "eager", "wait"}));
}

TEST(DeviceStep, ARefusedCaptureRunsEagerlyAndSaysWhy) {
  Notes notes;
  DeviceStep step(std::make_unique<FakeDevice>(notes, true), GraphPolicy());
  for (std::int64_t i = 1; i <= 3; ++i) step.run(alike(2), {i, 16, 1e-3, {0}}, {});
  EXPECT_EQ(notes, (Notes{"upload 2", "eager", "wait", "upload 2", "eager", "wait", "upload 2",
                          "eager", "wait"}));
  EXPECT_EQ(step.policy().why_not(), "the capture failed: not today");
  EXPECT_EQ(step.policy().describe(), "eager: the capture failed: not today");
}

TEST(CheckTokens, NamesTheTokenAndTheLabel) {
  auto batches = alike(1);
  batches[0].labels[2] = -100;
  EXPECT_NO_THROW(check_tokens(batches, kVocab));
  batches[0].labels[3] = kVocab;
  EXPECT_TRUE(holds(message_of<core::DataError>([&] { check_tokens(batches, kVocab); }),
                    "Label 61 at place 3 lies outside the vocabulary of 61"));
  batches[0].input_ids[5] = -1;
  EXPECT_TRUE(holds(message_of<core::DataError>([&] { check_tokens(batches, kVocab); }),
                    "Token id -1 lies outside the vocabulary of 61"));
}

}  // namespace
}  // namespace omnima::train
