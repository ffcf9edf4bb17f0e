// Reads the CPU's feature bits and the environment variable OMNIMA_CPU_ISA.
#include "omnima/kernels/cpu/cpu_features.h"

#include <cstdlib>

#if defined(OMNIMA_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "omnima/core/error.h"

namespace omnima::kernels {
namespace {

constexpr std::array<const char*, kLevels> kNames{"generic",    "avx2",       "avx512",
                                                  "avx512vnni", "avx512bf16", "amx"};

struct Feature {
  const char* name;
  bool present;
};

// The compiler's check covers the operating system's support for the wide registers too.
std::vector<Feature> probe() {
#ifdef OMNIMA_X86
  __builtin_cpu_init();
#define OMNIMA_FEATURE(name) {name, __builtin_cpu_supports(name) != 0}
  return {OMNIMA_FEATURE("sse4.2"),     OMNIMA_FEATURE("avx"),        OMNIMA_FEATURE("avx2"),
          OMNIMA_FEATURE("fma"),        OMNIMA_FEATURE("f16c"),       OMNIMA_FEATURE("avx512f"),
          OMNIMA_FEATURE("avx512bw"),   OMNIMA_FEATURE("avx512dq"),   OMNIMA_FEATURE("avx512vl"),
          OMNIMA_FEATURE("avx512vnni"), OMNIMA_FEATURE("avx512bf16"), OMNIMA_FEATURE("amx-tile"),
          OMNIMA_FEATURE("amx-int8"),   OMNIMA_FEATURE("amx-bf16")};
#undef OMNIMA_FEATURE
#elif defined(__aarch64__)
  return {{"neon", true}};  // part of every 64-bit ARM: what the generic level is compiled to
#else
  return {};
#endif
}

bool has(const std::vector<Feature>& all, std::initializer_list<const char*> names) {
  for (const std::string name : names) {
    bool found = false;
    for (const auto& feature : all) found = found || (name == feature.name && feature.present);
    if (!found) return false;
  }
  return true;
}

// Linux gives a process the tile registers when it asks for them.
bool tiles_granted() {
#if defined(OMNIMA_X86) && defined(__linux__)
  constexpr long kAskForState = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
#else
  return false;
#endif
}

Level probe_level() {
  const auto all = probe();
  if (!has(all, {"avx2", "fma", "f16c"})) return Level::kGeneric;
  if (!has(all, {"avx512f", "avx512bw", "avx512dq", "avx512vl"})) return Level::kAvx2;
  if (!has(all, {"avx512vnni"})) return Level::kAvx512;
  if (!has(all, {"avx512bf16"})) return Level::kAvx512Vnni;
  const bool tiles = has(all, {"amx-tile", "amx-int8", "amx-bf16"}) && tiles_granted();
  return tiles ? Level::kAmx : Level::kAvx512Bf16;
}

Level choose_level() {
  const char* forced = std::getenv("OMNIMA_CPU_ISA");
  if (!forced || !*forced) return detected_level();
  return level_from_name(forced, detected_level());
}

}  // namespace

Level detected_level() {
  static const Level level = probe_level();
  return level;
}

Level active_level() {
  static const Level level = choose_level();
  return level;
}

const char* level_name(Level level) { return kNames[static_cast<std::size_t>(level)]; }

Level level_from_name(const std::string& name, Level highest) {
  std::string here;
  for (std::size_t i = 0; i <= static_cast<std::size_t>(highest); ++i) {
    if (name == kNames[i]) return static_cast<Level>(i);
    here += (i ? ", " : "") + std::string(kNames[i]);
  }
  bool known = false;
  for (const std::string level : kNames) known = known || level == name;
  throw core::ConfigError(core::message(
      "OMNIMA_CPU_ISA is \"", name, "\", which is ",
      known ? "an instruction set that this CPU lacks" : "not the name of an instruction set",
      ". This CPU has: ", here, ". Name one of these, or unset the variable for the best."));
}

std::vector<std::string> features() {
  std::vector<std::string> names;
  for (const auto& feature : probe()) {
    if (feature.present) names.emplace_back(feature.name);
  }
  return names;
}

}  // namespace omnima::kernels
