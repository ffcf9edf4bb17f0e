// Which instruction sets the running CPU has, and the choice of a kernel's variant at run time.
// The level is chosen once, from the CPU or from the environment variable OMNIMA_CPU_ISA.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace omnima::kernels {

// Ascending: a CPU that has a level has all lower ones.
enum class Level { kGeneric, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmx };
inline constexpr std::size_t kLevels = 6;

// The highest level that this CPU has.
Level detected_level();
// The level in use: detected_level(), or what OMNIMA_CPU_ISA names. Throws ConfigError when that is
// an unknown name or a level that this CPU lacks.
Level active_level();
// "generic", "avx2", "avx512", "avx512vnni", "avx512bf16" or "amx": the suffix of the level's
// files.
const char* level_name(Level level);
// The level called `name`, if a CPU whose highest level is `highest` has it; else ConfigError.
Level level_from_name(const std::string& name, Level highest);
// The names of the instruction sets found on this CPU, for `omnima doctor`.
std::vector<std::string> features();

// One kernel's variants. A level without its own takes the next lower one, so that a kernel is
// written for the levels where it pays. F is a function pointer. In <kernel>.cpp:
//   const Variants<decltype(&dot_generic)> kDot{{Level::kGeneric, dot_generic},
//   #ifdef OMNIMA_X86
//                                               {Level::kAvx2, dot_avx2},
//   #endif
//   };
//   float dot(const float* a, const float* b, int n) { return kDot.active()(a, b, n); }
// A level's file is compiled with the level's flags, so it must hold no inline function of a shared
// header: the linker keeps one copy of each, and it may keep the one that other CPUs cannot run.
template <class F>
class Variants {
 public:
  Variants(std::initializer_list<std::pair<Level, F>> variants) {
    for (const auto& [level, function] : variants) {
      own_[static_cast<std::size_t>(level)] = function;
    }
    F nearest = nullptr;
    for (std::size_t level = 0; level < kLevels; ++level) {
      if (own_[level]) nearest = own_[level];
      filled_[level] = nearest;
    }
  }

  // The variant that a CPU of this level runs.
  F at(Level level) const { return filled_[static_cast<std::size_t>(level)]; }
  F active() const { return at(active_level()); }
  // The levels up to `highest` that have a variant of their own: what a test loops over.
  std::vector<Level> levels(Level highest) const {
    std::vector<Level> all;
    for (std::size_t level = 0; level <= static_cast<std::size_t>(highest); ++level) {
      if (own_[level]) all.push_back(static_cast<Level>(level));
    }
    return all;
  }

 private:
  std::array<F, kLevels> own_{};
  std::array<F, kLevels> filled_{};
};

}  // namespace omnima::kernels
