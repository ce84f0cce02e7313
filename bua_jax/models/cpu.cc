// Decoding's kernels for a CPU, in float32: products of few rows, and attention to a cache.
//
// Each result is one sum in a fixed order, so what a row computes does not depend on the rows beside it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

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
typedef int32_t Integers __attribute__((vector_size(kLanes * sizeof(float))));

static inline Vector Load(const float* from) {
  Vector value;
  memcpy(&value, from, sizeof value);
  return value;
}

static inline void Store(float* to, Vector value) { memcpy(to, &value, sizeof value); }

// A matrix in row-major order, or a part of one.
struct View {
  float* at;
  int64_t stride;
};

// R rows by kTile columns of y = x w, held in registers over `depth` steps; added to y unless `first`.
template <int R>
static void Tile(View x, View w, int64_t depth, View y, bool first) {
  Vector sum[R][2];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < 2; ++j) sum[r][j] = first ? Vector{} : Load(y.at + r * y.stride + j * kLanes);
  for (int64_t k = 0; k < depth; ++k) {
    const Vector left = Load(w.at + k * w.stride), right = Load(w.at + k * w.stride + kLanes);
    for (int r = 0; r < R; ++r) {
      const float scale = x.at[r * x.stride + k];
      sum[r][0] += scale * left;
      sum[r][1] += scale * right;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < 2; ++j) Store(y.at + r * y.stride + j * kLanes, sum[r][j]);
}

// `Tile` for up to R rows and any multiple of kTile columns.
template <int R>
static void Tiles(int rows, int64_t columns, View x, View w, int64_t depth, View y, bool first) {
  if constexpr (R > 0) {
    if (rows < R) return Tiles<R - 1>(rows, columns, x, w, depth, y, first);
    for (int64_t c = 0; c < columns; c += kTile)
      Tile<R>(x, {w.at + c, w.stride}, depth, {y.at + c, y.stride}, first);
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

using Vectors = ffi::Buffer<ffi::F32>;
using Counts = ffi::Buffer<ffi::S32>;

// y [m, n] = x [m, k] w, with w as panels [ceil(n / 32), k, 32] of 32 columns each. It is read once, in the
// order in which it lies in memory.
static ffi::Error Multiply(ffi::ThreadPool pool, Vectors x, Vectors w, ffi::Result<Vectors> y) {
  const int64_t m = x.dimensions()[0], k = x.dimensions()[1], n = y->dimensions()[1];
  float *from = x.typed_data(), *weight = w.typed_data(), *to = y->typed_data();
  InParallel(pool, w.dimensions()[0], [=](int64_t panel) {
    float edge[kRows * kPanel];  // the last panel may have fewer columns
    const int64_t columns = std::min<int64_t>(kPanel, n - panel * kPanel);
    const bool full = columns == kPanel;
    const int64_t tiles = (m + kRows - 1) / kRows;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = m * t / tiles, rows = m * (t + 1) / tiles - row;
      float* out = to + row * n + panel * kPanel;
      const View result = full ? View{out, n} : View{edge, kPanel};
      for (int64_t at = 0; at < k; at += kDepth)
        Tiles<kRows>(rows, kPanel, {from + row * k + at, k},
                     {weight + (panel * k + at) * kPanel, kPanel}, std::min(kDepth, k - at), result, at == 0);
      for (int64_t r = 0; !full && r < rows; ++r)
        memcpy(out + r * n, edge + r * kPanel, columns * sizeof(float));
    }
  });
  return ffi::Error::Success();
}

// Softmax over the first `count` of score[...], the rest up to `end` becomes 0; returns 1 / their sum.
static float Softmax(float* score, int64_t count, int64_t end) {
  for (int64_t s = count; s < end; ++s) score[s] = -INFINITY;
  Vector top = Load(score), total = {};
  for (int64_t s = kLanes; s < end; s += kLanes) {
    const Vector here = Load(score + s);
    top = here > top ? here : top;
  }
  float highest = top[0];
  for (int lane = 1; lane < kLanes; ++lane) highest = std::max(highest, top[lane]);
  for (int64_t s = 0; s < end; s += kLanes) {
    const Vector power = Exp(Load(score + s) - highest);
    Store(score + s, power);
    total += power;
  }
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += total[lane];
  return 1 / sum;
}

// Appends counts[b] of the keys and values k, v [B, T, heads, D] to row b of the cache (keys [B, heads, D, S],
// values [B, heads, S, D], lengths[b] of them filled), then y [B, T, N, D] of q [B, T, N, D]: causal attention
// to all that row b holds. Tokens beyond counts[b] get 0. D and S are multiples of 32.
static ffi::Error Attend(ffi::ThreadPool pool, Vectors q, Vectors k, Vectors v, Vectors keys,
                         Vectors values, Counts lengths, Counts counts, ffi::Result<Vectors> y,
                         ffi::Result<Vectors> new_keys, ffi::Result<Vectors> new_values) {
  const int64_t batch = q.dimensions()[0], length = q.dimensions()[1], all_heads = q.dimensions()[2];
  const int64_t heads = k.dimensions()[2], depth = q.dimensions()[3], slots = keys.dimensions()[3];
  const int64_t group = all_heads / heads;
  if (new_keys->typed_data() != keys.typed_data() || new_values->typed_data() != values.typed_data())
    return ffi::Error::Internal("the cache must be updated in place");
  const float *query = q.typed_data(), *key = k.typed_data(), *value = v.typed_data();
  float *past_keys = keys.typed_data(), *past_values = values.typed_data(), *out = y->typed_data();
  const int32_t *filled = lengths.typed_data(), *added = counts.typed_data();

  const auto append = [=](int64_t i) {
    const int64_t row = i / heads, head = i % heads;
    const int64_t begin = filled[row], end = std::min(begin + added[row], slots);
    const auto place = [=](int64_t slot) { return ((row * length + slot - begin) * heads + head) * depth; };
    for (int64_t slot = begin; slot < end; ++slot)
      memcpy(past_values + (i * slots + slot) * depth, value + place(slot), depth * sizeof(float));
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t slot = begin; slot < end; ++slot)
        past_keys[(i * depth + d) * slots + slot] = key[place(slot) + d];
  };

  const int64_t blocks = (length * group + kRows - 1) / kRows;  // of queries that share a kv head
  const float scale = 1 / std::sqrt(static_cast<float>(depth));
  if (blocks > 1) InParallel(pool, batch * heads, append);
  InParallel(pool, batch * heads * blocks, [=](int64_t i) {
    if (blocks == 1) append(i);
    const int64_t pair = i / blocks, row = pair / heads, head = pair % heads;
    const int64_t first = i % blocks * kRows;
    const int rows = std::min<int64_t>(kRows, length * group - first);
    int64_t place[kRows], seen[kRows], most = 0;  // where query r lies, and how many slots it attends to
    for (int r = 0; r < rows; ++r) {
      const int64_t t = (first + r) / group;
      place[r] = ((row * length + t) * all_heads + head * group + (first + r) % group) * depth;
      seen[r] = t < added[row] ? std::min(filled[row] + t + 1, slots) : 0;
      most = std::max(most, seen[r]);
    }
    const int64_t end = (most + kTile - 1) / kTile * kTile;
    thread_local std::vector<float> memory;
    memory.resize(kRows * (2 * depth + slots));
    float *scaled = memory.data(), *result = scaled + kRows * depth, *score = result + kRows * depth;
    for (int r = 0; r < rows; ++r)
      for (int64_t d = 0; d < depth; ++d) scaled[r * depth + d] = query[place[r] + d] * scale;
    Tiles<kRows>(rows, end, {scaled, depth}, {past_keys + pair * depth * slots, slots}, depth,
                 {score, slots}, true);
    float share[kRows];
    for (int r = 0; r < rows; ++r) share[r] = seen[r] ? Softmax(score + r * slots, seen[r], end) : 0;
    Tiles<kRows>(rows, depth, {score, slots}, {past_values + pair * slots * depth, depth}, most,
                 {result, depth}, true);
    for (int r = 0; r < rows; ++r)
      for (int64_t d = 0; d < depth; ++d)
        out[place[r] + d] = seen[r] ? result[r * depth + d] * share[r] : 0;
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(multiply, Multiply,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Vectors>()
                                  .Arg<Vectors>()
                                  .Ret<Vectors>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(attend, Attend,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Vectors>()
                                  .Arg<Vectors>()
                                  .Arg<Vectors>()
                                  .Arg<Vectors>()
                                  .Arg<Vectors>()
                                  .Arg<Counts>()
                                  .Arg<Counts>()
                                  .Ret<Vectors>()
                                  .Ret<Vectors>()
                                  .Ret<Vectors>());
