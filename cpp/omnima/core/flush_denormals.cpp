#include "omnima/core/flush_denormals.h"

#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace omnima::core {
namespace {

// The register that says how this thread rounds, and its bits for "take denormals as zero".
#if defined(__SSE__)
constexpr std::uint64_t kFlush = 0x8040;
std::uint64_t control() { return _mm_getcsr(); }
void set_control(std::uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
#elif defined(__aarch64__)
constexpr std::uint64_t kFlush = 1u << 24;
std::uint64_t control() {
  std::uint64_t value;
  asm volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void set_control(std::uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#else
constexpr std::uint64_t kFlush = 0;
std::uint64_t control() { return 0; }
void set_control(std::uint64_t) {}
#endif

}  // namespace

// Only these bits are put back: what else was set in between stays.
FlushDenormals::FlushDenormals() : saved_(control() & kFlush) { set_control(control() | kFlush); }
FlushDenormals::~FlushDenormals() { set_control((control() & ~kFlush) | saved_); }

}  // namespace omnima::core
