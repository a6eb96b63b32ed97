#pragma once
// What the kernels of genrec_kernels::packed share. Sequences lie end to end; an operation is one launch.
//
// T is the type that matrix products are computed in, float or bf16; sums, norms and softmax are in float.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

// Memory that a block's threads share, as much as the launch asks for.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]
#endif

struct bf16 {
  u16 bits;
};

__device__ __forceinline__ float load(const float *p) { return *p; }
__device__ __forceinline__ float load(const bf16 *p) { return __uint_as_float((u32)p->bits << 16); }

__device__ __forceinline__ u32 round_bf16(float v) {
  u32 bits = __float_as_uint(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
__device__ __forceinline__ void store(float *p, float v) { *p = v; }
__device__ __forceinline__ void store(bf16 *p, float v) { p->bits = (u16)round_bf16(v); }

// Four neighbours at an address that is a multiple of their size.
__device__ __forceinline__ float4 load4(const float *p) { return *reinterpret_cast<const float4 *>(p); }
__device__ __forceinline__ float4 load4(const bf16 *p) {
  uint2 two = *reinterpret_cast<const uint2 *>(p);
  float4 v;
  v.x = __uint_as_float(two.x << 16);
  v.y = __uint_as_float(two.x & 0xffff0000u);
  v.z = __uint_as_float(two.y << 16);
  v.w = __uint_as_float(two.y & 0xffff0000u);
  return v;
}

template <int N> struct Lanes {
  float v[N];
};
template <int N> __device__ __forceinline__ Lanes<N> lanes(const float *p) {
  Lanes<N> out;
  if (N % 4 == 0) {
    float4 four = *reinterpret_cast<const float4 *>(p);
    out.v[0] = four.x, out.v[1 % N] = four.y, out.v[2 % N] = four.z, out.v[3 % N] = four.w;
  } else if (N == 2) {
    float2 two = *reinterpret_cast<const float2 *>(p);
    out.v[0] = two.x, out.v[1 % N] = two.y;
  } else {
    out.v[0] = *p;
  }
  return out;
}

__device__ __forceinline__ float warp_sum(float v) {
  for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
  for (int step = 16; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
  return v;
}

// Sum or greatest over a block of at most 1,024 threads; `shared` has 32 floats.
__device__ float block_reduce(float v, bool greatest, float *shared) {
  v = greatest ? warp_max(v) : warp_sum(v);
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  __syncthreads();
  if (lane == 0) shared[warp] = v;
  __syncthreads();
  float total = shared[0];
  for (u32 w = 1; w < warps; w++) total = greatest ? fmaxf(total, shared[w]) : total + shared[w];
  return total;
}

// Dropout: the masks of DropoutMask, bit for bit. Element e takes 16 bits, those of lane (e / 32) % 4, of the hash of
// e / 128 * 32 + e % 32.
struct Mask {
  u64 key;
  u32 threshold;
  float scale;

  __device__ __forceinline__ u64 word(u64 counter) const {
    u64 z = key + (counter + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  __device__ __forceinline__ float factor(u64 word, u32 lane) const {
    return ((u32)(word >> (16 * lane)) & 0xffffu) >= threshold ? scale : 0.0f;
  }
};

// The number of this warp among all of the grid's x axis.
__device__ __forceinline__ u32 warp_number() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

// The factors of elements that one thread visits in ascending steps of 32, each hash computed once.
struct Factors {
  Mask mask;
  u64 block, word;

  __device__ __forceinline__ explicit Factors(Mask m) : mask(m), block(~0ull), word(0) {}
  __device__ __forceinline__ float at(u64 e) {
    if (mask.threshold == 0) return 1.0f;
    if (e >> 7 != block) {
      block = e >> 7;
      word = mask.word(block * 32 + (e & 31));
    }
    return mask.factor(word, (u32)(e >> 5) & 3u);
  }
};
