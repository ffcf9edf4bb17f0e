// Numbers into every format that Omnima writes, and back: any bits of float32, NaN and infinities
// too.
#include <cmath>
#include <cstring>
#include <limits>

#include "entries.h"
#include "omnima/quant/format.h"

namespace omnima::fuzz {
namespace {

void run(std::string_view bytes) {
  for (const quant::Format* format : quant::formats()) {
    const auto width = static_cast<std::size_t>(format->numbers);
    const std::size_t blocks = bytes.size() / (width * sizeof(float));
    if (format->quantize == nullptr || blocks == 0) continue;
    std::vector<float> numbers(blocks * width);
    std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(float));
    std::vector<std::uint8_t> made(blocks * static_cast<std::size_t>(format->bytes));
    std::vector<float> again(numbers.size());
    const auto count = static_cast<std::int64_t>(blocks);
    format->quantize(numbers.data(), count, made.data());
    format->dequantize(made.data(), count, again.data());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      expect(std::isfinite(numbers[i]) || !std::isfinite(again[i]),
             "NaN or infinity became a number");
      expect(!std::isnan(again[i]) || width > 1 || std::isnan(numbers[i]),
             "a number that is stored alone became NaN");
    }
  }
}

std::vector<std::string> seeds() {
  using Limits = std::numeric_limits<float>;
  std::vector<std::string> all;
  for (const float largest : {0.0f, 1.0f, -3e4f, 1e-40f, Limits::denorm_min(), Limits::max(),
                              Limits::infinity(), Limits::quiet_NaN()}) {
    std::vector<float> numbers;
    for (int i = 0; i < 64; ++i) numbers.push_back(static_cast<float>(i - 32) / 32);
    for (float& number : numbers) number *= largest;
    std::string bytes(numbers.size() * sizeof(float), '\0');
    std::memcpy(bytes.data(), numbers.data(), bytes.size());
    all.push_back(std::move(bytes));
  }
  return all;
}

}  // namespace

const Entry kQuantize{"quantize", run, seeds, nullptr};

}  // namespace omnima::fuzz
