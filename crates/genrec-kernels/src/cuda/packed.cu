// Operations on rows and elements.
#include "common.cuh"

// x[row] = table[tokens[row]] * factor; a warp takes 128 elements.
extern "C" __global__ void embed(const float *table, const u32 *tokens, float *x, u32 d, u32 total, u64 key,
                                 u32 threshold, float scale) {
  u32 lane = threadIdx.x % 32, base = warp_number() * 128;
  Factors factors(Mask{key, threshold, scale});
  for (u32 e = base + lane; e < total && e < base + 128; e += 32)
    x[e] = table[(u64)tokens[e / d] * d + e % d] * factors.at(e);
}

extern "C" __global__ void embed_grad(const float *dx, const u32 *tokens, float *dtable, u32 d, u32 total, u64 key,
                                      u32 threshold, float scale) {
  u32 lane = threadIdx.x % 32, base = warp_number() * 128;
  Factors factors(Mask{key, threshold, scale});
  for (u32 e = base + lane; e < total && e < base + 128; e += 32) {
    float v = dx[e] * factors.at(e);
    if (v != 0.0f) atomicAdd(&dtable[(u64)tokens[e / d] * d + e % d], v);
  }
}

// sum = x + factor * branch, y = alpha * factor * weight * sum / rms(sum); a warp a row.
template <typename T>
__device__ void add_norm(const float *x, const T *branch, const float *weight, float *sum, T *y, u32 rows, u32 d,
                         float eps, float alpha, Mask in, Mask out) {
  u32 lane = threadIdx.x % 32, row = warp_number();
  if (row >= rows) return;
  u64 first = (u64)row * d;
  Factors dropped(in), kept(out);
  float squares = 0.0f;
  for (u32 c = lane; c < d; c += 32) {
    float v = x[first + c];
    if (branch) {
      v += load(branch + first + c) * dropped.at(first + c);
      sum[first + c] = v;
    }
    squares += v * v;
  }
  float r = rsqrtf(warp_sum(squares) / (float)d + eps) * alpha;
  const float *values = branch ? sum : x;
  for (u32 c = lane; c < d; c += 32)
    store(y + first + c, values[first + c] * r * weight[c] * kept.at(first + c));
}

// Backward of add_norm: dx = dsum (or 0) + the norm's gradient, dbranch = factor * dx; dweight is added to.
// Dynamic shared memory: a row of d floats for each warp.
template <typename T>
__device__ void add_norm_grad(const float *sum, const float *weight, const T *dy, const float *dsum, float *dx,
                              T *dbranch, float *dweight, u32 rows, u32 d, float eps, float alpha, Mask in, Mask out,
                              float *shared) {
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  float *own = shared + warp * d;
  for (u32 c = lane; c < d; c += 32) own[c] = 0.0f;
  for (u32 row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
    u64 first = (u64)row * d;
    float squares = 0.0f, dot = 0.0f;
    Factors kept(out);
    for (u32 c = lane; c < d; c += 32) {
      float v = sum[first + c];
      squares += v * v;
      dot += v * weight[c] * load(dy + first + c) * kept.at(first + c);
    }
    float r = rsqrtf(warp_sum(squares) / (float)d + eps);
    float back = warp_sum(dot) * alpha * r * r * r / (float)d;
    Factors again(out), dropped(in);
    for (u32 c = lane; c < d; c += 32) {
      float v = sum[first + c], g = alpha * load(dy + first + c) * again.at(first + c);
      own[c] += g * v * r;
      float total = r * weight[c] * g - v * back;
      if (dsum) total += dsum[first + c];
      dx[first + c] = total;
      if (dbranch) store(dbranch + first + c, total * dropped.at(first + c));
    }
  }
  __syncthreads();
  for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
    float total = 0.0f;
    for (u32 w = 0; w < warps; w++) total += shared[w * d + c];
    atomicAdd(&dweight[c], total);
  }
}

// f = factor * max(f, 0), in place.
template <typename T> __device__ void relu_dropout(T *f, u32 total, Mask mask) {
  u32 lane = threadIdx.x % 32, base = warp_number() * 128;
  Factors factors(mask);
  for (u32 e = base + lane; e < total && e < base + 128; e += 32) {
    float v = load(f + e);
    store(f + e, v <= 0.0f ? 0.0f : v * factors.at(e));
  }
}

// d = d * scale where g, the result of relu_dropout, is not zero; in place.
template <typename T> __device__ void relu_dropout_grad(const T *g, T *d, u32 total, float scale) {
  u32 lane = threadIdx.x % 32, base = warp_number() * 128;
  for (u32 e = base + lane; e < total && e < base + 128; e += 32)
    store(d + e, load(g + e) == 0.0f ? 0.0f : load(d + e) * scale);
}

// losses[row] = -log softmax(logits[row])[label]; logits become factor * (softmax - indicator). A block a row.
template <typename T>
__device__ void cross_entropy(T *logits, const u32 *labels, float *losses, u32 vocab, float factor, float *shared) {
  u32 row = blockIdx.x, label = labels[row];
  T *values = logits + (u64)row * vocab;
  float top = -INFINITY;
  for (u32 c = threadIdx.x; c < vocab; c += blockDim.x) top = fmaxf(top, load(values + c));
  top = block_reduce(top, true, shared);
  float sum = 0.0f;
  for (u32 c = threadIdx.x; c < vocab; c += blockDim.x) sum += __expf(load(values + c) - top);
  sum = block_reduce(sum, false, shared);
  if (threadIdx.x == 0) losses[row] = logf(sum) + top - load(values + label);
  __syncthreads();
  float scale = factor / sum;
  for (u32 c = threadIdx.x; c < vocab; c += blockDim.x)
    store(values + c, __expf(load(values + c) - top) * scale - (c == label ? factor : 0.0f));
}

// delta = sum of out * dout over a head's columns; a warp a row of `out` (queries, heads, d).
template <typename T> __device__ void attention_delta(const T *out, const T *dout, float *delta, u32 rows, u32 d) {
  u32 lane = threadIdx.x % 32, row = warp_number();
  if (row >= rows) return;
  float sum = 0.0f;
  for (u32 c = lane; c < d; c += 32) sum += load(out + (u64)row * d + c) * load(dout + (u64)row * d + c);
  sum = warp_sum(sum);
  if (lane == 0) delta[row] = sum;
}

// Parts of `values`, f32 one after another wherever they lie, to places of a flat buffer of T. `parts`: address, place,
// elements of each. Blocks (part, piece).
template <typename T> __device__ void gather_parts(const u64 *parts, T *out) {
  const float *from = reinterpret_cast<const float *>(parts[blockIdx.x * 3]);
  u64 place = parts[blockIdx.x * 3 + 1], count = parts[blockIdx.x * 3 + 2];
  for (u64 i = blockIdx.y * blockDim.x + threadIdx.x; i < count; i += gridDim.y * blockDim.x)
    store(out + place + i, from[i]);
}

#define BOTH(T, S)                                                                                                     \
  extern "C" __global__ void add_norm_##S(const float *x, const T *branch, const float *weight, float *sum, T *y,      \
                                          u32 rows, u32 d, float eps, float alpha, u64 key_in, u32 threshold_in,       \
                                          float scale_in, u64 key_out, u32 threshold_out, float scale_out) {           \
    add_norm<T>(x, branch, weight, sum, y, rows, d, eps, alpha, Mask{key_in, threshold_in, scale_in},                  \
                Mask{key_out, threshold_out, scale_out});                                                              \
  }                                                                                                                    \
  extern "C" __global__ void add_norm_grad_##S(                                                                        \
      const float *sum, const float *weight, const T *dy, const float *dsum, float *dx, T *dbranch, float *dweight,    \
      u32 rows, u32 d, float eps, float alpha, u64 key_in, u32 threshold_in, float scale_in, u64 key_out,              \
      u32 threshold_out, float scale_out) {                                                                            \
    DYNAMIC_SHARED(dynamic);                                                                                 \
    add_norm_grad<T>(sum, weight, dy, dsum, dx, dbranch, dweight, rows, d, eps, alpha,                                 \
                     Mask{key_in, threshold_in, scale_in}, Mask{key_out, threshold_out, scale_out}, dynamic);          \
  }                                                                                                                    \
  extern "C" __global__ void relu_dropout_##S(T *f, u32 total, u64 key, u32 threshold, float scale) {                  \
    relu_dropout<T>(f, total, Mask{key, threshold, scale});                                                            \
  }                                                                                                                    \
  extern "C" __global__ void relu_dropout_grad_##S(const T *g, T *d, u32 total, float scale) {                         \
    relu_dropout_grad<T>(g, d, total, scale);                                                                          \
  }                                                                                                                    \
  extern "C" __global__ void cross_entropy_##S(T *logits, const u32 *labels, float *losses, u32 vocab,                 \
                                               float factor) {                                                         \
    __shared__ float shared[32];                                                                                       \
    cross_entropy<T>(logits, labels, losses, vocab, factor, shared);                                                   \
  }                                                                                                                    \
  extern "C" __global__ void attention_delta_##S(const T *out, const T *dout, float *delta, u32 rows, u32 d) {         \
    attention_delta<T>(out, dout, delta, rows, d);                                                                     \
  }                                                                                                                    \
  extern "C" __global__ void gather_parts_##S(const u64 *parts, T *out) { gather_parts<T>(parts, out); }
BOTH(float, f32)
BOTH(bf16, bf16)
