// Decoding: attention over the tokens decoded so far, log-probabilities, and the best continuations in a trie.
#include "common.cuh"

// One query a row, over its own key and those of `steps - 1` earlier steps. `projected`: queries, keys and values side by
// side. `table`: for each earlier step the address of its own, and that of the row there from which each of these rows goes
// on (zero where it is the same row). `bias`: (steps, heads). A warp has a head of a row.
template <typename T>
__device__ void attend_past(const T *projected, const u64 *table, const float *bias, u32 steps, u32 rows, u32 heads,
                            u32 width, T *out) {
  u32 lane = threadIdx.x % 32, at = warp_number();
  if (at >= rows * heads) return;
  u32 row = at / heads, head = at % heads, inner = heads * width;
  const T *query = projected + (u64)row * 3 * inner + head * width;
  float q[4], acc[4], top = -INFINITY, total = 0.0f;
#pragma unroll
  for (int i = 0; i < 4; i++) q[i] = lane + 32 * i < width ? load(query + lane + 32 * i) : 0.0f, acc[i] = 0.0f;
  for (u32 s = 0; s < steps; s++) {
    bool earlier = s + 1 < steps;
    const u32 *from = earlier ? reinterpret_cast<const u32 *>(table[2 * s + 1]) : nullptr;
    const T *key = (earlier ? reinterpret_cast<const T *>(table[2 * s]) : projected) +
                   (u64)(from ? from[row] : row) * 3 * inner + inner + head * width;
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (lane + 32 * i < width) dot += q[i] * load(key + lane + 32 * i);
    float score = warp_sum(dot) + bias[s * heads + head], greatest = fmaxf(top, score);
    float shrink = __expf(top - greatest), p = __expf(score - greatest);
    total = total * shrink + p;
    top = greatest;
#pragma unroll
    for (int i = 0; i < 4; i++)
      acc[i] = acc[i] * shrink + (lane + 32 * i < width ? p * load(key + inner + lane + 32 * i) : 0.0f);
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (lane + 32 * i < width) store(out + (u64)row * inner + head * width + lane + 32 * i, acc[i] / total);
}

// A block a row.
template <typename T> __device__ void log_softmax(const T *logits, float *out, u32 width, float *shared) {
  const T *x = logits + (u64)blockIdx.x * width;
  float top = -INFINITY;
  for (u32 c = threadIdx.x; c < width; c += blockDim.x) top = fmaxf(top, load(x + c));
  top = block_reduce(top, true, shared);
  float sum = 0.0f;
  for (u32 c = threadIdx.x; c < width; c += blockDim.x) sum += __expf(load(x + c) - top);
  float log = top + logf(block_reduce(sum, false, shared));
  for (u32 c = threadIdx.x; c < width; c += blockDim.x) out[(u64)blockIdx.x * width + c] = load(x + c) - log;
}

// Order of floats as unsigned integers.
__device__ __forceinline__ u32 ordered(float v) {
  u32 bits = __float_as_uint(v);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float unordered(u32 key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Calls `visit(order, row)` for every child of the user's prefixes that may be generated: its order is its score, then the node
// that comes first; nodes of different prefixes differ. Returns whether a log-probability was no number below infinity.
template <typename Visit>
__device__ __forceinline__ bool each_child(const float *log_probs, const float *scores, const u32 *nodes,
                                           const u32 *first_child, const u32 *tokens, const float *penalty,
                                           u32 first_row, u32 width, u32 vocab, Visit visit) {
  bool bad = false;
  for (u32 b = threadIdx.x / 32; b < width; b += blockDim.x / 32) {
    u32 row = first_row + b, node = nodes ? nodes[row] : 0;
    float before = scores ? scores[row] : 0.0f;
    if (before == -INFINITY) continue;
    u32 end = first_child[node + 1];
    for (u32 child = first_child[node] + threadIdx.x % 32; child < end; child += 32) {
      float less = penalty ? penalty[child] : 0.0f;
      if (less == -INFINITY) continue;
      float log = log_probs[(u64)row * vocab + tokens[child]], score = before + less + log;
      if (!(log < INFINITY)) bad = true;
      if (score > -INFINITY) visit((u64)ordered(score) << 32 | (u32)~child, row);
    }
  }
  return bad;
}

// The `beams` best continuations of each user's `width` prefixes: children of their nodes, scored by the prefix's score and
// the child's log-probability; of equal ones the first. A block a user.
//
// log_probs (users * width, vocab); scores and nodes (users * width), or null for 0 and the root; first_child (nodes + 1),
// tokens (nodes), penalty (nodes) or null. New scores, nodes, tokens and rows they go on from (users, beams): -infinity, the
// root, 0 and the user's first row where there are too few. flags (users): whether some log-probability is no number
// below infinity. Dynamic shared memory: `sorted` (a power of two, at least `beams`) numbers of 64 bits, then as many rows
// of 32.
extern "C" __global__ void best_children(const float *log_probs, const float *scores, const u32 *nodes,
                                         const u32 *first_child, const u32 *tokens, const float *penalty, u32 width,
                                         u32 vocab, u32 beams, u32 sorted, float *new_scores, u32 *new_nodes,
                                         u32 *new_tokens, u32 *new_rows, u32 *flags) {
  DYNAMIC_SHARED(dynamic);
  u64 *kept = reinterpret_cast<u64 *>(dynamic);
  u32 *rows = reinterpret_cast<u32 *>(kept + sorted);
  __shared__ u32 histogram[256], found, chosen, left, bad, above;
  u32 first_row = blockIdx.x * width;
  if (threadIdx.x == 0) found = 0, bad = 0, left = beams;
  u64 least = 0, known = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (u32 i = threadIdx.x; i < 256; i += blockDim.x) histogram[i] = 0;
    __syncthreads();
    bool broken = each_child(log_probs, scores, nodes, first_child, tokens, penalty, first_row, width, vocab,
                             [&](u64 order, u32) {
                               if (shift == 56 || order >> (shift + 8) == known)
                                 atomicAdd(&histogram[order >> shift & 255u], 1u);
                             });
    if (broken) bad = 1;
    __syncthreads();
    if (threadIdx.x == 0) {
      u32 digit = 256, sum = 0;
      while (digit > 0 && sum + histogram[digit - 1] < left) sum += histogram[--digit];
      // The last one that is wanted has the digit below, or all are wanted, as the first digit tells.
      chosen = digit;
      above = digit > 0 ? histogram[digit - 1] : 0;
      left -= sum;
    }
    __syncthreads();
    if (chosen == 0) break;
    known = known << 8 | (chosen - 1);
    least = known << shift;
    if (above == left) break;
    __syncthreads();
  }
  for (u32 i = threadIdx.x; i < sorted; i += blockDim.x) kept[i] = 0;
  __syncthreads();
  each_child(log_probs, scores, nodes, first_child, tokens, penalty, first_row, width, vocab, [&](u64 order, u32 row) {
    if (order < least) return;
    u32 slot = atomicAdd(&found, 1u);
    if (slot < sorted) kept[slot] = order, rows[slot] = row;
  });
  __syncthreads();
  // Bitonic sort, descending; rows go with their candidates.
  for (u32 size = 2; size <= sorted; size <<= 1)
    for (u32 step = size >> 1; step > 0; step >>= 1) {
      for (u32 i = threadIdx.x; i < sorted; i += blockDim.x) {
        u32 j = i ^ step;
        if (j > i && (kept[i] < kept[j]) == ((i & size) == 0)) {
          u64 order = kept[i];
          kept[i] = kept[j], kept[j] = order;
          u32 row = rows[i];
          rows[i] = rows[j], rows[j] = row;
        }
      }
      __syncthreads();
    }
  for (u32 i = threadIdx.x; i < beams; i += blockDim.x) {
    u64 order = kept[i], at = (u64)blockIdx.x * beams + i;
    u32 child = ~(u32)order;
    new_scores[at] = order ? unordered((u32)(order >> 32)) : -INFINITY;
    new_nodes[at] = order ? child : 0;
    new_tokens[at] = order ? tokens[child] : 0;
    new_rows[at] = order ? rows[i] : first_row;
  }
  if (threadIdx.x == 0) flags[blockIdx.x] = bad;
}

#define BOTH(T, S)                                                                                                     \
  extern "C" __global__ void attend_past_##S(const T *projected, const u64 *table, const float *bias, u32 steps,       \
                                             u32 rows, u32 heads, u32 width, T *out) {                                 \
    attend_past<T>(projected, table, bias, steps, rows, heads, width, out);                                            \
  }                                                                                                                    \
  extern "C" __global__ void log_softmax_##S(const T *logits, float *out, u32 width) {                                 \
    __shared__ float shared[32];                                                                                       \
    log_softmax<T>(logits, out, width, shared);                                                                        \
  }
BOTH(float, f32)
BOTH(bf16, bf16)
