// The scheduler of the emulated device: one fiber a thread, one block at a time.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated_cuda {

namespace {

constexpr std::size_t kStack = 64 * 1024;
constexpr int kLanes = 32;

enum class State { kReady, kAtBarrier, kAtExchange, kDone };

// A fiber is begun by swapcontext on a stack of its own; afterwards control moves by _setjmp and
// _longjmp, which ask nothing of the kernel.
struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool begun = false;
  std::unique_ptr<char[]> stack{new char[kStack]};
  State state = State::kReady;
  float values[2] = {};  // of the last two shuffles: a lane may be one ahead of another
  int shuffles = 0;
};

bool falling_order = false;
std::int64_t launch_count = 0;
ucontext_t scheduler_context;
jmp_buf scheduler;
std::deque<Fiber> fibers;  // a fiber stays where it is
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;

void wait_as(State state) {
  running->state = state;
  if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}

void fiber_main() {
  for (;;) {  // one round a block
    (*body)();
    wait_as(State::kDone);
  }
}

void resume(Fiber& fiber) {
  running = &fiber;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.begun) _longjmp(fiber.place, 1);
  fiber.begun = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  swapcontext(&scheduler_context, &fiber.context);
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "emulated device, block (%u, %u): %s\n", blockIdx.x, blockIdx.y, what);
  std::abort();
}

// Lets every thread run up to its next meeting; true while one could.
bool run_ready(int threads) {
  bool any = false;
  for (int i = 0; i < threads; ++i) {
    const int at = falling_order ? threads - 1 - i : i;
    if (fibers[at].state != State::kReady) continue;
    any = true;
    threadIdx.x = static_cast<unsigned>(at);
    resume(fibers[at]);
  }
  return any;
}

// Opens the meetings that are complete: those of whole warps first, then that of the block.
bool open_meetings(int threads) {
  bool any = false;
  for (int warp = 0; warp < threads; warp += kLanes) {
    int waiting = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      waiting += fibers[warp + lane].state == State::kAtExchange;
    }
    if (waiting == 0) continue;
    if (waiting != kLanes) continue;
    for (int lane = 0; lane < kLanes; ++lane) fibers[warp + lane].state = State::kReady;
    any = true;
  }
  if (any) return true;
  int at_barrier = 0, done = 0;
  for (int i = 0; i < threads; ++i) {
    at_barrier += fibers[i].state == State::kAtBarrier;
    done += fibers[i].state == State::kDone;
  }
  if (done == threads) return false;
  if (at_barrier == 0 || at_barrier != threads)
    fail("not all threads meet at a barrier or shuffle");
  for (int i = 0; i < threads; ++i) fibers[i].state = State::kReady;
  return true;
}

void run_block(int threads) {
  for (int i = 0; i < threads; ++i) {
    fibers[i].state = State::kReady;
    fibers[i].shuffles = 0;
  }
  do {
    while (run_ready(threads)) {
    }
  } while (open_meetings(threads));
}

}  // namespace

void set_falling_order(bool falling) { falling_order = falling; }
std::int64_t launches() { return launch_count; }

void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  const int threads = static_cast<int>(config.blockDim.x);
  if (threads < 1 || threads > 1024 || threads % kLanes != 0 || config.gridDim.y > 65535) {
    fail("a launch the device would refuse");
  }
  while (static_cast<int>(fibers.size()) < threads) fibers.emplace_back();
  ++launch_count;
  body = &kernel;
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) run_block(threads);
  }
}

void block_barrier() { wait_as(State::kAtBarrier); }

float exchange(float value, int from) {
  const int turn = running->shuffles++ % 2;
  running->values[turn] = value;
  const int warp = static_cast<int>(threadIdx.x) / kLanes * kLanes;
  wait_as(State::kAtExchange);
  return fibers[warp + from].values[turn];
}

}  // namespace emulated_cuda
