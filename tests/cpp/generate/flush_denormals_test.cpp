// Writing leaves the threads of wide products as it found them.
#include <gtest/gtest.h>

#include <thread>

#include "../denormals.h"
#include "omnima/generate/engine.h"
#include "omnima/models/decoder.h"
#include "tiny_models.h"

#if defined(__SSE__) || defined(__aarch64__)

namespace omnima::generate {
namespace {

// A thread of its own has workers of its own, which the first long prompt makes (not the tables of
// rotary positions, which are made before it).
TEST(FlushDenormalsOfWriting, ALongPromptLeavesNoThreadThatFlushes) {
  const models::Decoder model(tiny_config({{"positions", std::string("learned")}}, 61, 64), 3);
  const Engine engine(model.config(), parameters_of(model));
  int kept = 0;
  std::thread([&] {
    const WithThreads with(2);
    engine.logits(random_ids(1, 40, 61), false);
    kept = threads_that_keep();
  }).join();
  EXPECT_EQ(kept, 2);
}

}  // namespace
}  // namespace omnima::generate

#endif
