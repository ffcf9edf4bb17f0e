// Broken headers by the ten thousand: the reader takes them or says what is wrong, and touches
// nothing beside the text. Made for the address sanitizer.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>

#include "omnima/core/error.h"
#include "omnima/io/json.h"

namespace omnima::io {
namespace {

const std::string kWhere = "file: header";
const std::string kHeader =
    R"({"__metadata__":{"format":"pt","n\u00e4me":"\ud83d\ude00 \"x\""},)"
    R"("model.norm.weight":{"dtype":"F32","shape":[12,0,9223372036854775807],"data_offsets":[0,48]},)"
    R"("b":{"dtype":"BF16","shape":[],"data_offsets":[48,50]}}  )";

// Reads as a safetensors header is read.
void read(std::string_view text) {
  JsonReader reader(text, kWhere);
  reader.object([&](const std::string& name) {
    reader.set_subject(name);
    reader.object([&](const std::string& key) {
      if (key == "shape" || key == "data_offsets") {
        reader.array([&] { EXPECT_GE(reader.natural(), 0); });
      } else {
        EXPECT_TRUE(is_utf8(reader.string()));
      }
    });
  });
  reader.finish();
}

std::string mutated(std::mt19937& draw) {
  const std::string spice = "{}[]\",:\\u0d8e9-+. \n\t\x01\x7f\x80\xc3\xed\xf4\xff";
  std::string text = kHeader;
  for (unsigned edits = 1 + draw() % 4; edits > 0 && !text.empty(); --edits) {
    const std::size_t at = draw() % text.size(), length = 1 + draw() % 5;
    switch (draw() % 5) {
      case 0:
        text[at] = spice[draw() % spice.size()];
        break;
      case 1:
        text.insert(at, 1, spice[draw() % spice.size()]);
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.resize(at);
        break;
      default:
        text.insert(at, text.substr(draw() % text.size(), length));
    }
  }
  return text;
}

TEST(JsonMutations, AreTakenOrRefusedWithTheirPlace) {
  std::mt19937 draw(1);
  int taken = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = mutated(draw);
    // Memory of exactly this size: one byte too far is a finding.
    const std::unique_ptr<char[]> exact(new char[text.size()]);
    std::copy(text.begin(), text.end(), exact.get());
    try {
      read({exact.get(), text.size()});
      ++taken;
    } catch (const core::DataError& error) {
      EXPECT_EQ(std::string(error.what()).rfind(kWhere, 0), 0u) << error.what();
    }
  }
  EXPECT_GT(taken, 100);  // what was changed in a name or a number is as good as before
  EXPECT_LT(taken, 15000);
}

TEST(JsonMutations, EveryBeginningOfAHeaderIsRefused) {
  for (std::size_t size = 0; size + 2 < kHeader.size(); ++size) {
    const std::unique_ptr<char[]> exact(new char[size]);
    std::copy_n(kHeader.begin(), size, exact.get());
    EXPECT_THROW(read({exact.get(), size}), core::DataError) << size;
  }
  EXPECT_NO_THROW(read(kHeader));
}

}  // namespace
}  // namespace omnima::io
