// Attention of sequences end to end and its gradient: no scores in memory, softmax as it goes (Dao et al. 2022,
// FlashAttention, algorithms 1 and 4). Compiled for one TYPE and SUFFIX (float f32, bf16 bf16) and one WIDTH of heads.
#include "common.cuh"

// What attention sees: sequences end to end, and how queries and keys lie in wider rows.
struct Sight {
  const u32 *q_spans, *k_spans; // first row and number of rows of each sequence
  const float *bias;  // (span, heads), by the key's distance from the query, or null
  u32 heads, q_stride, kv_stride, centre, span, causal, mask_width;
  Mask mask;
};

constexpr int KEYS = 32;     // keys of a tile
constexpr int THREADS = 128; // 8 groups of 16: a group has RQ queries, a thread two keys of a tile or D / 16 columns

template <typename T, int D, int ROWS>
__device__ __forceinline__ void load_tile(float (*tile)[D + 4], const T *values, u32 stride, u32 first, u32 end) {
  for (u32 i = threadIdx.x; i < ROWS * (D / 4); i += THREADS) {
    u32 row = i / (D / 4), c = i % (D / 4) * 4;
    float4 v;
    v.x = v.y = v.z = v.w = 0.0f;
    if (first + row < end) v = load4(values + (u64)(first + row) * stride + c);
    *reinterpret_cast<float4 *>(&tile[row][c]) = v;
  }
}

// a[i][c] = left[rows i] . right[keys tx + 16 c]
template <int D, int RQ>
__device__ __forceinline__ void products(float (*a)[2], const float (*left)[D + 4], const float (*right)[D + 4], int ty,
                                         int tx) {
#pragma unroll
  for (int i = 0; i < RQ; i++) a[i][0] = a[i][1] = 0.0f;
#pragma unroll
  for (int c = 0; c < D; c += 4) {
    float4 k0 = *reinterpret_cast<const float4 *>(&right[tx][c]);
    float4 k1 = *reinterpret_cast<const float4 *>(&right[tx + 16][c]);
#pragma unroll
    for (int i = 0; i < RQ; i++) {
      float4 q = *reinterpret_cast<const float4 *>(&left[ty * RQ + i][c]);
      a[i][0] += q.x * k0.x + q.y * k0.y + q.z * k0.z + q.w * k0.w;
      a[i][1] += q.x * k1.x + q.y * k1.y + q.z * k1.z + q.w * k1.w;
    }
  }
}

// The score's bias and whether the key is seen; `from` is the key's position less the query's.
__device__ __forceinline__ float biased(const Sight &sight, float score, int from, u32 head) {
  if (!sight.bias) return score;
  int reach = (int)sight.centre;
  int at = reach + (from < -reach ? -reach : from > reach ? reach : from);
  return score + sight.bias[(u32)at * sight.heads + head];
}

__device__ __forceinline__ bool seen(const Sight &sight, u32 i, u32 j, u32 queries, u32 keys) {
  return i < queries && j < keys && (!sight.causal || j + queries <= i + keys);
}

// The factor of key j for the query's row (of all queries and heads) of the mask.
__device__ __forceinline__ float dropped(const Sight &sight, u64 row, u32 j) {
  if (sight.mask.threshold == 0) return 1.0f;
  u64 block = row * (sight.mask_width >> 7) + (j >> 7);
  return sight.mask.factor(sight.mask.word(block * 32 + (j & 31u)), (j >> 5) & 3u);
}

// out = dropout(softmax(q k^T + bias)) v, logs = log-sum-exp of the scores; a block has 8 RQ queries of a head.
template <typename T, int D, int RQ>
__device__ void attention(const T *q, const T *k, const T *v, Sight sight, T *out, float *logs) {
  constexpr int COLS = D / 16;
  __shared__ __align__(16) float qs[8 * RQ][D + 4], ks[KEYS][D + 4], vs[KEYS][D + 4], ps[8 * RQ][KEYS + 4];
  u32 seq = blockIdx.x, head = blockIdx.y;
  u32 q_first = sight.q_spans[2 * seq], queries = sight.q_spans[2 * seq + 1];
  u32 k_first = sight.k_spans[2 * seq], keys = sight.k_spans[2 * seq + 1];
  u32 start = blockIdx.z * 8 * RQ;
  if (start >= queries) return;
  int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  load_tile<T, D, 8 * RQ>(qs, q + (u64)q_first * sight.q_stride + head * D, sight.q_stride, start, queries);
  float acc[RQ][COLS], top[RQ], total[RQ];
#pragma unroll
  for (int i = 0; i < RQ; i++) {
    top[i] = -INFINITY, total[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < COLS; c++) acc[i][c] = 0.0f;
  }
  const T *k_rows = k + (u64)k_first * sight.kv_stride + head * D, *v_rows = v + (u64)k_first * sight.kv_stride + head * D;
  for (u32 tile = 0; tile < keys; tile += KEYS) {
    // With later keys unseen, tiles past the last query's are empty.
    if (sight.causal && tile + queries > start + 8 * RQ - 1 + keys) break;
    __syncthreads();
    load_tile<T, D, KEYS>(ks, k_rows, sight.kv_stride, tile, keys);
    load_tile<T, D, KEYS>(vs, v_rows, sight.kv_stride, tile, keys);
    __syncthreads();
    float s[RQ][2];
    products<D, RQ>(s, qs, ks, ty, tx);
#pragma unroll
    for (int i = 0; i < RQ; i++) {
      u32 row = start + ty * RQ + i;
      float greatest = top[i];
#pragma unroll
      for (int c = 0; c < 2; c++) {
        u32 j = tile + tx + 16 * c;
        s[i][c] = seen(sight, row, j, queries, keys) ? biased(sight, s[i][c], (int)j - (int)row, head) : -INFINITY;
        greatest = fmaxf(greatest, s[i][c]);
      }
      for (int step = 8; step > 0; step >>= 1) greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, step));
      float shrink = greatest == -INFINITY ? 1.0f : __expf(top[i] - greatest);
      float sum = 0.0f;
      u64 mask_row = (u64)(q_first + row) * sight.heads + head;
#pragma unroll
      for (int c = 0; c < 2; c++) {
        float p = s[i][c] == -INFINITY ? 0.0f : __expf(s[i][c] - greatest);
        sum += p;
        ps[ty * RQ + i][tx + 16 * c] = p * dropped(sight, mask_row, tile + tx + 16 * c);
      }
      for (int step = 8; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      total[i] = total[i] * shrink + sum;
      top[i] = greatest;
#pragma unroll
      for (int c = 0; c < COLS; c++) acc[i][c] *= shrink;
    }
    __syncwarp();
#pragma unroll
    for (int j = 0; j < KEYS; j += 4) {
      Lanes<COLS> v0 = lanes<COLS>(&vs[j][tx * COLS]), v1 = lanes<COLS>(&vs[j + 1][tx * COLS]);
      Lanes<COLS> v2 = lanes<COLS>(&vs[j + 2][tx * COLS]), v3 = lanes<COLS>(&vs[j + 3][tx * COLS]);
#pragma unroll
      for (int i = 0; i < RQ; i++) {
        float4 p = *reinterpret_cast<const float4 *>(&ps[ty * RQ + i][j]);
#pragma unroll
        for (int c = 0; c < COLS; c++) acc[i][c] += p.x * v0.v[c] + p.y * v1.v[c] + p.z * v2.v[c] + p.w * v3.v[c];
      }
    }
  }
  for (int i = 0; i < RQ; i++) {
    u32 row = start + ty * RQ + i;
    if (row >= queries) break;
    float r = total[i] > 0.0f ? 1.0f / total[i] : 0.0f;
    u64 at = (u64)(q_first + row) * sight.heads + head;
    for (int c = 0; c < COLS; c++) store(out + at * D + tx * COLS + c, acc[i][c] * r);
    if (tx == 0) logs[at] = total[i] > 0.0f ? top[i] + logf(total[i]) : INFINITY;
  }
}

// Gradients of attention; a block has a head of a sequence. dq, dk and dv lie as q, k and v do; dbias is added to. The sum of
// dq over tiles of keys is kept in T.
// Dynamic shared memory: `span` floats.
template <typename T, int D, int RQ>
__device__ void attention_grad(const T *q, const T *k, const T *v, Sight sight, const float *logs, const float *delta,
                               const T *dout, T *dq, T *dk, T *dv, float *dbias, float *spread) {
  constexpr int COLS = D / 16, QUERIES = 8 * RQ;
  __shared__ __align__(16) float qs[QUERIES][D + 4], ds[QUERIES][D + 4], ks[KEYS][D + 4], vs[KEYS][D + 4];
  __shared__ __align__(16) float ps[QUERIES][KEYS + 4], gs[QUERIES][KEYS + 4];
  u32 seq = blockIdx.x, head = blockIdx.y;
  u32 q_first = sight.q_spans[2 * seq], queries = sight.q_spans[2 * seq + 1];
  u32 k_first = sight.k_spans[2 * seq], keys = sight.k_spans[2 * seq + 1];
  int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  u64 q_at = (u64)q_first * sight.q_stride + head * D, k_at = (u64)k_first * sight.kv_stride + head * D;
  u32 out_stride = sight.heads * D;
  const T *dout_rows = dout + (u64)q_first * out_stride + head * D;
  if (dbias)
    for (u32 i = threadIdx.x; i < sight.span; i += THREADS) spread[i] = 0.0f;
  // Queries that see no key: no tile would write their gradient.
  if (keys == 0)
    for (u32 i = threadIdx.x; i < queries * D; i += THREADS) store(dq + q_at + (u64)(i / D) * sight.q_stride + i % D, 0.0f);
  for (u32 tile = 0; tile < keys; tile += KEYS) {
    __syncthreads();
    load_tile<T, D, KEYS>(ks, k + k_at, sight.kv_stride, tile, keys);
    load_tile<T, D, KEYS>(vs, v + k_at, sight.kv_stride, tile, keys);
    float dk_acc[4][COLS], dv_acc[4][COLS];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int c = 0; c < COLS; c++) dk_acc[i][c] = dv_acc[i][c] = 0.0f;
    for (u32 start = 0; start < queries; start += QUERIES) {
      // Queries that see nothing of this tile; their dq must still be written once, with the first tile.
      if (tile > 0 && sight.causal && tile + queries > start + QUERIES - 1 + keys) continue;
      __syncthreads();
      load_tile<T, D, QUERIES>(qs, q + q_at, sight.q_stride, start, queries);
      load_tile<T, D, QUERIES>(ds, dout_rows, out_stride, start, queries);
      __syncthreads();
      float s[RQ][2], g[RQ][2];
      products<D, RQ>(s, qs, ks, ty, tx);
      products<D, RQ>(g, ds, vs, ty, tx);
#pragma unroll
      for (int i = 0; i < RQ; i++) {
        u32 row = start + ty * RQ + i;
        u64 at = (u64)(q_first + row) * sight.heads + head;
        float log = row < queries ? logs[at] : INFINITY, less = row < queries ? delta[at] : 0.0f;
#pragma unroll
        for (int c = 0; c < 2; c++) {
          u32 j = tile + tx + 16 * c;
          float p = 0.0f, grad = 0.0f, kept = 0.0f;
          if (seen(sight, row, j, queries, keys)) {
            p = __expf(biased(sight, s[i][c], (int)j - (int)row, head) - log);
            float factor = dropped(sight, at, j);
            grad = p * (g[i][c] * factor - less);
            kept = p * factor;
          }
          ps[ty * RQ + i][tx + 16 * c] = kept;
          gs[ty * RQ + i][tx + 16 * c] = grad;
        }
      }
      __syncthreads();
      // Rows ty * 4 + a of keys: products over the queries.
#pragma unroll 4
      for (int i = 0; i < QUERIES; i++) {
        float4 p = *reinterpret_cast<const float4 *>(&ps[i][ty * 4]);
        float4 r = *reinterpret_cast<const float4 *>(&gs[i][ty * 4]);
        Lanes<COLS> d = lanes<COLS>(&ds[i][tx * COLS]), query = lanes<COLS>(&qs[i][tx * COLS]);
#pragma unroll
        for (int c = 0; c < COLS; c++) {
          dv_acc[0][c] += p.x * d.v[c], dv_acc[1][c] += p.y * d.v[c];
          dv_acc[2][c] += p.z * d.v[c], dv_acc[3][c] += p.w * d.v[c];
          dk_acc[0][c] += r.x * query.v[c], dk_acc[1][c] += r.y * query.v[c];
          dk_acc[2][c] += r.z * query.v[c], dk_acc[3][c] += r.w * query.v[c];
        }
      }
      float dq_acc[RQ][COLS];
#pragma unroll
      for (int i = 0; i < RQ; i++)
#pragma unroll
        for (int c = 0; c < COLS; c++) dq_acc[i][c] = 0.0f;
#pragma unroll 2
      for (int j = 0; j < KEYS; j += 4) {
        Lanes<COLS> k0 = lanes<COLS>(&ks[j][tx * COLS]), k1 = lanes<COLS>(&ks[j + 1][tx * COLS]);
        Lanes<COLS> k2 = lanes<COLS>(&ks[j + 2][tx * COLS]), k3 = lanes<COLS>(&ks[j + 3][tx * COLS]);
#pragma unroll
        for (int i = 0; i < RQ; i++) {
          float4 r = *reinterpret_cast<const float4 *>(&gs[ty * RQ + i][j]);
#pragma unroll
          for (int c = 0; c < COLS; c++) dq_acc[i][c] += r.x * k0.v[c] + r.y * k1.v[c] + r.z * k2.v[c] + r.w * k3.v[c];
        }
      }
      for (int i = 0; i < RQ; i++) {
        u32 row = start + ty * RQ + i;
        if (row >= queries) break;
        T *to = dq + q_at + (u64)row * sight.q_stride + tx * COLS;
        for (int c = 0; c < COLS; c++) store(to + c, tile == 0 ? dq_acc[i][c] : load(to + c) + dq_acc[i][c]);
      }
      if (dbias && threadIdx.x < QUERIES + KEYS - 1) {
        int from = (int)threadIdx.x - (QUERIES - 1);
        float sum = 0.0f;
        for (int i = 0; i < QUERIES; i++) {
          int j = i + from;
          if (j >= 0 && j < KEYS) sum += gs[i][j];
        }
        int reach = (int)sight.centre, far = (int)tile - (int)start + from;
        atomicAdd(&spread[reach + (far < -reach ? -reach : far > reach ? reach : far)], sum);
      }
    }
    for (int i = 0; i < 4; i++) {
      u32 row = tile + ty * 4 + i;
      if (row >= keys) break;
      for (int c = 0; c < COLS; c++) {
        u64 at = k_at + (u64)row * sight.kv_stride + tx * COLS + c;
        store(dk + at, dk_acc[i][c]);
        store(dv + at, dv_acc[i][c]);
      }
    }
  }
  if (dbias) {
    __syncthreads();
    for (u32 i = threadIdx.x; i < sight.span; i += THREADS)
      if (spread[i] != 0.0f) atomicAdd(&dbias[i * sight.heads + head], spread[i]);
  }
}

#define NAME_(what, type, width, queries) what##_##type##_##width##_##queries
#define NAME(what, type, width, queries) NAME_(what, type, width, queries)
#define ATTENTION(T, S, D, RQ)                                                                                         \
  extern "C" __global__ void __launch_bounds__(THREADS) NAME(attention, S, D, RQ)(                                     \
      const T *q, const T *k, const T *v, const u32 *q_spans, const u32 *k_spans, const float *bias, u32 heads,    \
      u32 q_stride, u32 kv_stride, u32 centre, u32 span, u32 causal, u32 mask_width, u64 key, u32 threshold,           \
      float scale, T *out, float *logs) {                                                                              \
    attention<T, D, RQ>(q, k, v,                                                                                       \
                        Sight{q_spans, k_spans, bias, heads, q_stride, kv_stride, centre, span, causal,            \
                              mask_width, Mask{key, threshold, scale}},                                                \
                        out, logs);                                                                                    \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS) NAME(attention_grad, S, D, RQ)(                                \
      const T *q, const T *k, const T *v, const u32 *q_spans, const u32 *k_spans, const float *bias, u32 heads,    \
      u32 q_stride, u32 kv_stride, u32 centre, u32 span, u32 causal, u32 mask_width, u64 key, u32 threshold,           \
      float scale, const float *logs, const float *delta, const T *dout, T *dq, T *dk, T *dv, float *dbias) {          \
    DYNAMIC_SHARED(dynamic);                                                                                 \
    attention_grad<T, D, RQ>(q, k, v,                                                                                  \
                             Sight{q_spans, k_spans, bias, heads, q_stride, kv_stride, centre, span, causal,       \
                                   mask_width, Mask{key, threshold, scale}},                                           \
                             logs, delta, dout, dq, dk, dv, dbias, dynamic);                                           \
  }
// One type and one width of heads a module, so that a program loads what its model needs.
ATTENTION(TYPE, SUFFIX, WIDTH, 1)
ATTENTION(TYPE, SUFFIX, WIDTH, 4)
