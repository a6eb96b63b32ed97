// Every kernel in one library, to be called by name.
#include "device.h"

#include "../../src/cuda/optim.cu"
#include "../../src/cuda/packed.cu"
#undef BOTH
#include "../../src/cuda/decode.cu"

#define TYPE float
#define SUFFIX f32
#define WIDTH 64
#include "../../src/cuda/attention.cu"
ATTENTION(float, f32, 16, 1)
ATTENTION(float, f32, 16, 4)
ATTENTION(float, f32, 32, 1)
ATTENTION(float, f32, 32, 4)
ATTENTION(bf16, bf16, 16, 1)
ATTENTION(bf16, bf16, 16, 4)
ATTENTION(bf16, bf16, 32, 1)
ATTENTION(bf16, bf16, 32, 4)
ATTENTION(bf16, bf16, 64, 1)
ATTENTION(bf16, bf16, 64, 4)

// Runs a kernel over a grid; returns 0, or 1 where there is none of that name.
extern "C" int emulate(const char *name, const uint64_t *args, const unsigned *grid, unsigned threads) {
#define KERNEL(kernel)                                                                                                 \
  if (!strcmp(name, #kernel)) {                                                                                        \
    emulator::run(Dim{grid[0], grid[1], grid[2]}, threads, [&] { emulator::call(kernel, args); });                     \
    return 0;                                                                                                          \
  }
#define TYPES(kernel) KERNEL(kernel##_f32) KERNEL(kernel##_bf16)
#define HEADS(kernel, queries) TYPES_OF(kernel, 16, queries) TYPES_OF(kernel, 32, queries) TYPES_OF(kernel, 64, queries)
#define TYPES_OF(kernel, width, queries)                                                                               \
  KERNEL(kernel##_f32_##width##_##queries) KERNEL(kernel##_bf16_##width##_##queries)
  KERNEL(embed)
  KERNEL(embed_grad)
  KERNEL(adamw)
  KERNEL(adafactor_rows)
  KERNEL(adafactor_columns)
  KERNEL(adafactor_squares)
  KERNEL(adafactor_apply)
  KERNEL(squares)
  KERNEL(best_children)
  TYPES(add_norm)
  TYPES(add_norm_grad)
  TYPES(relu_dropout)
  TYPES(relu_dropout_grad)
  TYPES(cross_entropy)
  TYPES(attention_delta)
  TYPES(gather_parts)
  TYPES(attend_past)
  TYPES(log_softmax)
  HEADS(attention, 1)
  HEADS(attention, 4)
  HEADS(attention_grad, 1)
  HEADS(attention_grad, 4)
  return 1;
}
