// What the kernels of cpu.cc are made of: products in registers, exponentials, and a pool of threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

template <>
struct ffi::CtxBinding<ffi::ThreadPool> {  // a handler's parameter that is neither given nor returned
  using Ctx = ffi::ThreadPool;
};

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 12;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kRows = 6;
#else
constexpr int kLanes = 4, kRows = 8;
#endif
constexpr int kPanel = 32, kTile = 2 * kLanes;
constexpr int64_t kGroup = 32;    // rows of a panel whose integers share a scale; cpu.py has it too
constexpr int64_t kDepth = 1024;  // rows of a panel that stay in the second-level cache: 128 KiB
constexpr int kAhead = 64;        // rows of a panel that are fetched before they are needed
constexpr int64_t kQueries = 48, kKeys = 96;  // whose scores and their gradients stay there too
static_assert(kKeys % kPanel == 0);

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(kLanes * sizeof(float))));

static inline Vector Load(const float* from) {
  Vector value;
  memcpy(&value, from, sizeof value);
  return value;
}

// bfloat16 is the upper half of a float32.
static inline Vector Load(const uint16_t* from) {
  typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));
  Halves half;
  memcpy(&half, from, sizeof half);
  const Integers whole = __builtin_convertvector(half, Integers) << 16;
  Vector value;
  memcpy(&value, &whole, sizeof value);
  return value;
}

static inline Vector Load(const int8_t* from) {  // GCC would convert lane by lane
#if defined(__AVX512F__)
  return (Vector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif defined(__AVX2__)
  return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#else
  Vector value;
  for (int lane = 0; lane < kLanes; ++lane) value[lane] = from[lane];
  return value;
#endif
}

static inline void Store(float* to, Vector value) { memcpy(to, &value, sizeof value); }

// A matrix in row-major order, or a part of one.
template <typename T>
struct Part {
  T* at;
  int64_t stride;
};
using View = Part<float>;

// R rows by W vectors of y = x w, held in registers over `depth` steps; added to y unless `first`.
// `kTransposed`: x is the transpose of what lies there. `scale`: what each column of integers is multiplied by.
template <int R, int W, bool kTransposed, typename T>
static void Tile(View x, Part<T> w, int64_t depth, View y, bool first, const float* scale) {
  constexpr bool kScaled = std::is_integral_v<T> && sizeof(T) == 1;
  Vector sum[R][W];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < W; ++j)
      sum[r][j] = first || kScaled ? Vector{} : Load(y.at + r * y.stride + j * kLanes);
  for (int64_t k = 0; k < depth; ++k) {
    Vector right[W];
    for (int j = 0; j < W; ++j) {
      right[j] = Load(w.at + k * w.stride + j * kLanes);
      __builtin_prefetch(w.at + (k + kAhead) * w.stride + j * kLanes);  // also beyond w: it cannot fault
    }
    for (int r = 0; r < R; ++r) {
      const float left = kTransposed ? x.at[k * x.stride + r] : x.at[r * x.stride + k];
      for (int j = 0; j < W; ++j) sum[r][j] += left * right[j];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < W; ++j) {
      float* to = y.at + r * y.stride + j * kLanes;
      if constexpr (kScaled) {  // one product and sum whatever R and `first`: the compiler may fuse them
        const Vector before = first ? Vector{} : Load(to);
        sum[r][j] = before + sum[r][j] * Load(scale + j * kLanes);
      }
      Store(to, sum[r][j]);
    }
}

// `Tile` for up to R rows and any multiple of kTile columns. The fewer rows, the more columns a tile has: w is
// read in longer runs.
template <int R, bool kTransposed = false, typename T = float>
static void Tiles(int rows, int64_t columns, View x, Part<T> w, int64_t depth, View y, bool first,
                  const float* scale = nullptr) {
  if constexpr (R > 0) {
    if (rows < R) return Tiles<R - 1, kTransposed>(rows, columns, x, w, depth, y, first, scale);
    constexpr int kWide = R * 4 <= kRows ? 8 : R * 2 <= kRows ? 4 : 2;
    int64_t c = 0;
    for (; c + kWide * kLanes <= columns; c += kWide * kLanes)
      Tile<R, kWide, kTransposed, T>(x, {w.at + c, w.stride}, depth, {y.at + c, y.stride}, first,
                                  scale ? scale + c : nullptr);
    for (; c < columns; c += kTile)
      Tile<R, 2, kTransposed, T>(x, {w.at + c, w.stride}, depth, {y.at + c, y.stride}, first,
                                  scale ? scale + c : nullptr);
  }
}

// exp(x) for x <= 0, to within 2e-7 of it; 0 below -87.
static inline Vector Exp(Vector x) {
  const Vector shift = Vector{} + 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number
  const Vector whole = (x * 1.44269504f + shift) - shift;
  const Vector rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
  Vector power = Vector{} + 1.f / 5040;
  for (float factor : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) power = power * rest + factor;
  const Integers exponent = (__builtin_convertvector(whole, Integers) + 127) << 23;
  Vector scale;
  memcpy(&scale, &exponent, sizeof scale);
  return x < -87.f ? Vector{} : power * scale;
}

// Calls part(i) once for each i < count, from this thread and those of the pool that are free.
static void InParallel(ffi::ThreadPool& pool, int64_t count, std::function<void(int64_t)> part) {
  struct State {
    std::function<void(int64_t)> part;
    int64_t count, share;
    std::atomic<int64_t> next{0}, done{0};
    void Work() {
      int64_t begin;
      while ((begin = next.fetch_add(share)) < count) {
        const int64_t end = std::min(begin + share, count);
        for (int64_t i = begin; i < end; ++i) part(i);
        done.fetch_add(end - begin, std::memory_order_release);
      }
    }
  };
  const int64_t threads = std::max<int64_t>(1, std::min(pool.num_threads(), count));
  // Shared: a helper may get its turn only when all is done and the call has returned.
  auto state = std::make_shared<State>();
  state->part = std::move(part), state->count = count;
  state->share = std::max<int64_t>(1, count / (4 * threads));
  for (int64_t helper = 1; helper < threads; ++helper) pool.Schedule([state] { state->Work(); });
  state->Work();
  // What is not done yet is with a helper that runs, so waiting for it cannot block the pool.
  for (int spins = 0; state->done.load(std::memory_order_acquire) < count; ++spins)
    if (spins > 1000) std::this_thread::yield();
}
