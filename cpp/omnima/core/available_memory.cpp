#include "omnima/core/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace omnima::core {
namespace {

constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::max();

// A file of one number; kUnknown where there is none.
std::int64_t number_in(const char* path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? number : kUnknown;
}

}  // namespace

std::int64_t available_memory() {
  std::int64_t available = kUnknown;
  std::ifstream system("/proc/meminfo");
  for (std::string line; std::getline(system, line);) {
    if (line.starts_with("MemAvailable:")) available = std::stoll(line.substr(13)) * 1024;
  }
  const std::int64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const std::int64_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit == kUnknown || used == kUnknown) return available;
  return std::min(available, std::max<std::int64_t>(limit - used, 0));
}

}  // namespace omnima::core
