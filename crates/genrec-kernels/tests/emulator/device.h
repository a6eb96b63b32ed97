// CUDA's language on a processor, as far as the kernels use it: a fiber for each thread of one block at a time, switched where
// threads meet. Slow, and in a fixed order, which is all that a test of arithmetic needs.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static
#define DYNAMIC_SHARED(name) float *name = reinterpret_cast<float *>(emulator::dynamic)

struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint2 {
  unsigned x, y;
};
struct Dim {
  unsigned x, y, z;
};

inline Dim threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr unsigned WARP = 32, MOST = 1024, STACK = 64 << 10;

alignas(16) inline unsigned char dynamic[64 << 10];

// Where some threads wait for one another; those that have ended are not waited for.
struct Meeting {
  unsigned members = 0, arrived = 0, round = 0;
  void release() {
    if (members > 0 && arrived == members) arrived = 0, round++;
  }
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current;
inline Meeting block, warps[MOST / WARP];
inline float slots[MOST];
inline const std::function<void()> *body;

inline void wait(Meeting &meeting) {
  unsigned me = current, round = meeting.round;
  meeting.arrived++;
  meeting.release();
  while (meeting.round == round) swapcontext(&fibers[me].context, &scheduler);
}

inline void enter() {
  (*body)();
  unsigned me = current;
  fibers[me].done = true;
  block.members--, block.release();
  warps[me / WARP].members--, warps[me / WARP].release();
  swapcontext(&fibers[me].context, &scheduler);
}

inline void run_block(unsigned threads, const std::function<void()> &kernel) {
  body = &kernel;
  if (fibers.size() < threads) fibers.resize(threads);
  block = Meeting{threads, 0, 0};
  for (unsigned w = 0; w * WARP < threads; w++) warps[w] = Meeting{WARP, 0, 0};
  for (unsigned i = 0; i < threads; i++) {
    Fiber &fiber = fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[STACK]);
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, enter, 0);
  }
  for (bool running = true; running;) {
    running = false;
    for (unsigned i = 0; i < threads; i++) {
      if (fibers[i].done) continue;
      running = true;
      current = i;
      threadIdx = Dim{i, 0, 0};
      swapcontext(&scheduler, &fibers[i].context);
    }
  }
}

inline void run(Dim grid, unsigned threads, const std::function<void()> &kernel) {
  gridDim = grid, blockDim = Dim{threads, 1, 1};
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        blockIdx = Dim{x, y, z};
        // What a kernel does not set itself must not be relied on.
        memset(dynamic, 0xff, sizeof dynamic);
        run_block(threads, kernel);
      }
}

template <typename A> A argument(const uint64_t *slot) {
  A value;
  memcpy(&value, slot, sizeof value);
  return value;
}

// Calls a kernel with arguments of eight bytes each, of which it takes as many as the type has.
template <typename... A, size_t... I>
void call(void (*kernel)(A...), const uint64_t *args, std::index_sequence<I...>) {
  kernel(argument<A>(args + I)...);
}
template <typename... A> void call(void (*kernel)(A...), const uint64_t *args) {
  call(kernel, args, std::index_sequence_for<A...>());
}

} // namespace emulator

inline void __syncthreads() { emulator::wait(emulator::block); }
inline void __syncwarp() { emulator::wait(emulator::warps[emulator::current / emulator::WARP]); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  unsigned me = emulator::current;
  emulator::slots[me] = value;
  __syncwarp();
  float other = emulator::slots[me ^ (unsigned)mask];
  __syncwarp();
  return other;
}

inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
template <typename V> V atomicAdd(V *place, V value) {
  V before = *place;
  *place = before + value;
  return before;
}
inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline float __expf(float value) { return expf(value); }
