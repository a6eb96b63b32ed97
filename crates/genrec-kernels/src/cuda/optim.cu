// Optimisers: all parameters at once, blocks (parameter, piece). Tables hold addresses and sizes, a row a parameter.
#include "common.cuh"

__device__ __forceinline__ float block_sum(float v) {
  __shared__ float shared[32];
  return block_reduce(v, false, shared);
}

// Rows of the table: parameter, gradient, both old moments, both new moments, elements.
extern "C" __global__ void adamw(const u64 *table, float beta1, float beta2, float eps, float keep, float rate,
                                 float root) {
  const u64 *row = table + blockIdx.x * 7;
  float *p = reinterpret_cast<float *>(row[0]);
  const float *g = reinterpret_cast<const float *>(row[1]);
  const float *old_mean = reinterpret_cast<const float *>(row[2]), *old_square = reinterpret_cast<const float *>(row[3]);
  float *new_mean = reinterpret_cast<float *>(row[4]), *new_square = reinterpret_cast<float *>(row[5]);
  for (u64 i = blockIdx.y * blockDim.x + threadIdx.x; i < row[6]; i += gridDim.y * blockDim.x) {
    float grad = g[i];
    float mean = beta1 * old_mean[i] + (1.0f - beta1) * grad;
    float square = beta2 * old_square[i] + (1.0f - beta2) * (grad * grad);
    new_mean[i] = mean, new_square[i] = square;
    p[i] = keep * p[i] - rate * mean / (sqrtf(square) * root + eps);
  }
}

// Adafactor. Rows of the table: parameter, gradient, old and new moment of the rows (or of every element), old and new
// moment of the columns, rows, columns. A parameter of fewer than two axes has `columns` zero and `rows` elements.
// `sums`, three floats a parameter, begins as zeros: mean of the rows' moments, sum of squares of the update and of the
// parameter. `column_sums` begins as zeros, `stride` floats a parameter.
struct Factored {
  float *p;
  const float *g, *old_rows;
  float *new_rows;
  const float *old_columns;
  float *new_columns;
  u32 rows, columns;

  __device__ __forceinline__ explicit Factored(const u64 *table) {
    const u64 *row = table + blockIdx.x * 8;
    p = reinterpret_cast<float *>(row[0]), g = reinterpret_cast<const float *>(row[1]);
    old_rows = reinterpret_cast<const float *>(row[2]), new_rows = reinterpret_cast<float *>(row[3]);
    old_columns = reinterpret_cast<const float *>(row[4]), new_columns = reinterpret_cast<float *>(row[5]);
    rows = (u32)row[6], columns = (u32)row[7];
  }
  __device__ __forceinline__ u32 elements() const { return columns ? rows * columns : rows; }
  __device__ __forceinline__ float update(u32 i, float row_mean) const {
    if (!columns) return g[i] / sqrtf(new_rows[i]);
    return g[i] * rsqrtf(new_rows[i / columns] / row_mean) * rsqrtf(new_columns[i % columns]);
  }
};

// New moments of the rows, and sums for those of the columns. Dynamic shared memory: `stride` floats.
extern "C" __global__ void adafactor_rows(const u64 *table, float *column_sums, u32 stride, float beta2, float eps) {
  DYNAMIC_SHARED(dynamic);
  Factored f(table);
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (!f.columns) {
    for (u32 i = blockIdx.y * blockDim.x + threadIdx.x; i < f.rows; i += gridDim.y * blockDim.x)
      f.new_rows[i] = beta2 * f.old_rows[i] + (1.0f - beta2) * (f.g[i] * f.g[i] + eps);
    return;
  }
  if (blockIdx.y * warps >= f.rows) return;
  for (u32 c = threadIdx.x; c < f.columns; c += blockDim.x) dynamic[c] = 0.0f;
  __syncthreads();
  for (u32 r = blockIdx.y * warps + warp; r < f.rows; r += gridDim.y * warps) {
    float sum = 0.0f;
    for (u32 c = lane; c < f.columns; c += 32) {
      float g = f.g[(u64)r * f.columns + c], square = g * g + eps;
      sum += square;
      atomicAdd(&dynamic[c], square);
    }
    sum = warp_sum(sum);
    if (lane == 0) f.new_rows[r] = beta2 * f.old_rows[r] + (1.0f - beta2) * (sum / (float)f.columns);
  }
  __syncthreads();
  for (u32 c = threadIdx.x; c < f.columns; c += blockDim.x) atomicAdd(&column_sums[blockIdx.x * stride + c], dynamic[c]);
}

// New moments of the columns and the mean of the rows'; a block a parameter.
extern "C" __global__ void adafactor_columns(const u64 *table, const float *column_sums, float *sums, u32 stride,
                                             float beta2) {
  Factored f(table);
  for (u32 c = threadIdx.x; c < f.columns; c += blockDim.x)
    f.new_columns[c] =
        beta2 * f.old_columns[c] + (1.0f - beta2) * (column_sums[blockIdx.x * stride + c] / (float)f.rows);
  float sum = 0.0f;
  for (u32 r = threadIdx.x; r < f.rows; r += blockDim.x) sum += f.new_rows[r];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x * 3] = sum / (float)f.rows;
}

// Sums of squares of the update and of the parameter.
extern "C" __global__ void adafactor_squares(const u64 *table, float *sums) {
  Factored f(table);
  float row_mean = sums[blockIdx.x * 3], update = 0.0f, value = 0.0f;
  for (u32 i = blockIdx.y * blockDim.x + threadIdx.x; i < f.elements(); i += gridDim.y * blockDim.x) {
    float u = f.update(i, row_mean);
    update += u * u;
    value += f.p[i] * f.p[i];
  }
  update = block_sum(update);
  value = block_sum(value);
  if (threadIdx.x == 0) {
    atomicAdd(&sums[blockIdx.x * 3 + 1], update);
    atomicAdd(&sums[blockIdx.x * 3 + 2], value);
  }
}

// `scaled` says whether the rate is multiplied by the parameter's root mean square.
extern "C" __global__ void adafactor_apply(const u64 *table, const float *sums, float rate, float least, u32 scaled,
                                           float clip, float decay) {
  Factored f(table);
  float row_mean = sums[blockIdx.x * 3], n = (float)f.elements();
  float update = sqrtf(sums[blockIdx.x * 3 + 1] / n), value = sqrtf(sums[blockIdx.x * 3 + 2] / n);
  float own = scaled ? rate * fmaxf(value, least) : rate;
  float step = own / fmaxf(update / clip, 1.0f), keep = 1.0f - decay * own;
  for (u32 i = blockIdx.y * blockDim.x + threadIdx.x; i < f.elements(); i += gridDim.y * blockDim.x)
    f.p[i] = keep * f.p[i] - step * f.update(i, row_mean);
}

// Sum of squares of each piece of each of some tensors. Rows of the table: address, elements.
extern "C" __global__ void squares(const u64 *table, float *out) {
  const float *x = reinterpret_cast<const float *>(table[blockIdx.x * 2]);
  u64 count = table[blockIdx.x * 2 + 1];
  float sum = 0.0f;
  for (u64 i = blockIdx.y * blockDim.x + threadIdx.x; i < count; i += gridDim.y * blockDim.x) sum += x[i] * x[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) out[blockIdx.x * gridDim.y + blockIdx.y] = sum;
}
