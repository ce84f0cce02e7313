// y = x w in float32, for few rows of x: w is read once, in the order in which it lies in memory.
//
// x [m, k]; w [ceil(n / 32), k, 32], panels of 32 columns of a [k, n] matrix; y [m, n]. Every element of y
// is one sum in the order of k, whatever m is, so a row's result does not depend on the rows beside it.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 12;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kRows = 6;
#else
constexpr int kLanes = 4, kRows = 8;
#endif
constexpr int kPanel = 32, kTile = 2 * kLanes;
constexpr int64_t kDepth = 1024;  // rows of a panel that stay in the second-level cache: 128 KiB

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));

static inline Vector Load(const float* from) {
  Vector value;
  memcpy(&value, from, sizeof value);
  return value;
}

// R rows by kTile columns of y, held in registers over `depth` steps; added to y unless `first`.
template <int R>
static void Tile(const float* x, int64_t x_stride, const float* w, int64_t depth, float* y,
                 int64_t y_stride, bool first) {
  Vector sum[R][2];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < 2; ++j) sum[r][j] = first ? Vector{} : Load(y + r * y_stride + j * kLanes);
  for (int64_t k = 0; k < depth; ++k) {
    const Vector left = Load(w + k * kPanel), right = Load(w + k * kPanel + kLanes);
    for (int r = 0; r < R; ++r) {
      const float scale = x[r * x_stride + k];
      sum[r][0] += scale * left;
      sum[r][1] += scale * right;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < 2; ++j) memcpy(y + r * y_stride + j * kLanes, &sum[r][j], sizeof(Vector));
}

template <int R, typename... Rest>
static void TileOf(int64_t rows, Rest... rest) {
  if constexpr (R > 0) {
    if (rows == R) return Tile<R>(rest...);
    TileOf<R - 1>(rows, rest...);
  }
}

struct Product {
  const float *x, *w;
  float* y;
  int64_t m, k, n, panels, share;
  std::atomic<int64_t> next{0}, done{0};

  void Panel(int64_t p) const {
    float edge[kRows * kPanel];  // the last panel may have fewer columns
    const int64_t columns = std::min<int64_t>(kPanel, n - p * kPanel);
    const int64_t tiles = (m + kRows - 1) / kRows;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = m * t / tiles, rows = m * (t + 1) / tiles - row;
      float* out = columns == kPanel ? y + row * n + p * kPanel : edge;
      const int64_t stride = columns == kPanel ? n : kPanel;
      for (int64_t at = 0; at < k; at += kDepth)
        for (int column = 0; column < kPanel; column += kTile)
          TileOf<kRows>(rows, x + row * k + at, k, w + (p * k + at) * kPanel + column,
                        std::min(kDepth, k - at), out + column, stride, at == 0);
      if (out == edge)
        for (int64_t r = 0; r < rows; ++r)
          memcpy(y + (row + r) * n + p * kPanel, edge + r * kPanel, columns * sizeof(float));
    }
  }

  // Takes shares of the panels until none is left.
  void Work() {
    int64_t begin;
    while ((begin = next.fetch_add(share)) < panels) {
      const int64_t end = std::min(begin + share, panels);
      for (int64_t p = begin; p < end; ++p) Panel(p);
      done.fetch_add(end - begin, std::memory_order_release);
    }
  }
};

using Matrix = ffi::Buffer<ffi::F32, 2>;
using Panels = ffi::Buffer<ffi::F32, 3>;

static ffi::Error Multiply(ffi::ThreadPool pool, Matrix x, Panels w, ffi::Result<Matrix> y) {
  // Shared, since a helper may only get its turn when all is done and this call has returned.
  auto product = std::make_shared<Product>();
  product->x = x.typed_data(), product->w = w.typed_data(), product->y = y->typed_data();
  product->m = x.dimensions()[0], product->k = x.dimensions()[1];
  product->n = y->dimensions()[1], product->panels = w.dimensions()[0];
  const int64_t threads = std::min<int64_t>(pool.num_threads(), product->panels);
  product->share = std::max<int64_t>(1, product->panels / (4 * std::max<int64_t>(1, threads)));
  for (int64_t helper = 1; helper < threads; ++helper) pool.Schedule([product] { product->Work(); });
  product->Work();
  // What is not done yet has been begun by a helper that runs: waiting for it cannot block the pool.
  for (int spins = 0; product->done.load(std::memory_order_acquire) < product->panels; ++spins)
    if (spins > 1000) std::this_thread::yield();
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(multiply, Multiply,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Matrix>()
                                  .Arg<Panels>()
                                  .Ret<Matrix>());
