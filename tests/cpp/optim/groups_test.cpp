// Name patterns, what they say about parameters, and what is wrong with a rule.
#include "omnima/optim/groups.h"

#include <gtest/gtest.h>

#include "omnima/core/error.h"

namespace omnima::optim {
namespace {

nn::Arena some_arena() {
  nn::Arena arena;
  arena.add({"embed", {3, 4}, 0.1});
  arena.add({"norm.0", {5}, 0.0, 1.0});
  arena.add({"layer.0", {2, 2}, 0.1});
  arena.add({"layer.1", {2, 3}, 0.1});
  arena.build(1, at::kCPU);
  return arena;
}

using Bounds = std::vector<std::pair<int64_t, int64_t>>;

Bounds bounds(const std::vector<Span>& spans) {
  Bounds result;
  for (const auto& span : spans) result.emplace_back(span.first, span.last);
  return result;
}

TEST(Matches, StarsAndQuestionMarks) {
  EXPECT_TRUE(matches("*", "") && matches("*", "a.b") && matches("a*b*c", "axxbyyc"));
  EXPECT_TRUE(matches("l?yer.*", "layer.0.weight") && matches("*.weight", "a.weight.weight"));
  EXPECT_FALSE(matches("layer", "layer.0") || matches("?", "") || matches("a*b", "abc"));
}

TEST(Groups, PlainOnesAreMatricesThatDecayAndVectorsThatDoNot) {
  const nn::Arena arena = some_arena();
  const Groups groups(arena, 0.3);
  const auto spans = groups.moving(1);
  EXPECT_TRUE(groups.plain());
  EXPECT_EQ(bounds(spans), (Bounds{{0, 22}, {22, 27}}));
  EXPECT_EQ(spans[0].weight_decay, 0.3);
  EXPECT_EQ(spans[1].weight_decay, 0.0);
  EXPECT_TRUE(groups.frozen(1).empty());
}

TEST(Groups, TheLastRuleCounts) {
  const nn::Arena arena = some_arena();
  const Groups groups(arena, 0.3,
                      {"*:lr=2", "layer.*:lr=0.5,weight_decay=0", "norm*:weight_decay=1"});
  const auto spans = groups.moving(7);
  EXPECT_EQ(bounds(spans), (Bounds{{0, 12}, {12, 22}, {22, 27}}));
  EXPECT_EQ(spans[0].lr, 2.0);
  EXPECT_EQ(spans[1].lr, 0.5);
  EXPECT_EQ(spans[1].weight_decay, 0.0);
  EXPECT_EQ(spans[2].lr, 2.0);
  EXPECT_EQ(spans[2].weight_decay, 1.0);
  EXPECT_EQ(groups.parameter(1, 7)->first, 22);  // norm.0, declared second
}

TEST(Groups, FreezesForTheStepsThatAreNamed) {
  const nn::Arena arena = some_arena();
  const Groups groups(arena, 0.1, {}, {"layer.0@3-5", "embed@-2", "layer.1@6-"});
  EXPECT_FALSE(groups.plain());
  EXPECT_EQ(bounds(groups.frozen(2)), (Bounds{{0, 12}}));
  EXPECT_EQ(bounds(groups.frozen(4)), (Bounds{{12, 16}}));
  EXPECT_EQ(bounds(groups.moving(4)), (Bounds{{0, 12}, {16, 22}, {22, 27}}));
  EXPECT_EQ(bounds(groups.frozen(900)), (Bounds{{16, 22}}));
  EXPECT_FALSE(groups.parameter(0, 1).has_value());
  EXPECT_TRUE(groups.parameter(0, 3).has_value());
}

TEST(Groups, FreezesTheFirstRows) {
  const nn::Arena arena = some_arena();
  const Groups groups(arena, 0.1, {}, {"embed[:1]", "embed[:2]", "norm*", "layer.0[:2]"});
  EXPECT_FALSE(groups.plain());
  EXPECT_EQ(bounds(groups.frozen(1)), (Bounds{{0, 8}, {12, 16}, {22, 27}}));
  EXPECT_EQ(bounds(groups.moving(9)), (Bounds{{8, 12}, {16, 22}}));
  EXPECT_EQ(groups.still(0), 8);
  EXPECT_EQ(groups.parameter(0, 1)->first, 8);
  EXPECT_EQ(groups.frozen_parameters(1), (std::vector<bool>{false, true, true, false}));
  EXPECT_FALSE(groups.parameter(2, 1).has_value());
}

TEST(Groups, BadRulesAreNamed) {
  const nn::Arena arena = some_arena();
  const auto message = [&](const std::vector<std::string>& rules,
                           const std::vector<std::string>& frozen) -> std::string {
    try {
      Groups(arena, 0.1, rules, frozen);
    } catch (const core::ConfigError& error) {
      return error.what();
    }
    return "";
  };
  const auto holds = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_EQ(message({"*:lr=1"}, {"*@1-1"}), "");
  EXPECT_TRUE(holds(message({"emded:lr=1"}, {}), "nearest is \"embed\""));
  EXPECT_TRUE(holds(message({"embed"}, {}), "says nothing"));
  EXPECT_TRUE(holds(message({"embed:speed=1"}, {}), "neither lr=NUMBER"));
  EXPECT_TRUE(holds(message({"embed:lr=fast"}, {}), "\"fast\""));
  EXPECT_TRUE(holds(message({"embed:lr=-1"}, {}), "lr of \"embed:lr=-1\" is -1"));
  EXPECT_TRUE(holds(message({"embed:weight_decay=11"}, {}), "weight_decay of"));
  EXPECT_TRUE(holds(message({}, {"nothing"}), "No parameter has a name like \"nothing\""));
  EXPECT_TRUE(holds(message({}, {"embed@5"}), "from which step"));
  EXPECT_TRUE(holds(message({}, {"embed@-"}), "from which step"));
  EXPECT_TRUE(holds(message({}, {"embed@a-b"}), "\"a\""));
  EXPECT_TRUE(holds(message({}, {"embed@9-2"}), "freezes no step"));
  EXPECT_TRUE(holds(message({}, {"embed[3]"}), "how many rows"));
  EXPECT_TRUE(holds(message({}, {"embed[:3]@1-2"}), "how many rows"));
  EXPECT_TRUE(holds(message({}, {"embed[:x]"}), "\"x\""));
  EXPECT_TRUE(holds(message({}, {"embed[:4]"}), "freezes 4 rows; embed has 3"));
  EXPECT_TRUE(holds(message({}, {"embed[:0]"}), "freezes 0 rows"));
}

}  // namespace
}  // namespace omnima::optim
