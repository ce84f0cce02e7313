// Kernels for a CPU, in float32. Decoding's: products of few rows, also with narrower weights, and attention to a
// cache; each result is one sum in a fixed order, so what a row computes does not depend on the rows beside it.
// Training's: attention within segments and its gradient.

#include "tiles.h"

using Vectors = ffi::Buffer<ffi::F32>;
using Halves = ffi::Buffer<ffi::BF16>;
using Bytes = ffi::Buffer<ffi::S8>;
using Counts = ffi::Buffer<ffi::S32>;
using Flags = ffi::Buffer<ffi::PRED>;

// y [m, n] = x [m, k] w, with w as panels [ceil(n / 32), >= k, 32] of 32 columns each, in float32, bfloat16 or
// integers with scales [ceil(n / 32), ceil(k / 32), 32]. It is read once, in the order in which it lies in memory.
template <ffi::DataType kType>
static ffi::Error Product(ffi::ThreadPool pool, Vectors x, ffi::Buffer<kType> w, const float* scales, Vectors y) {
  const int64_t m = x.dimensions()[0], k = x.dimensions()[1], n = y.dimensions()[1];
  const int64_t stored = w.dimensions()[1], groups = stored / kGroup, step = scales ? kGroup : kDepth;
  float *from = x.typed_data(), *to = y.typed_data();
  auto* weight = w.typed_data();
  using T = std::remove_pointer_t<decltype(weight)>;
  InParallel(pool, w.dimensions()[0], [=](int64_t panel) {
    float edge[kRows * kPanel];  // the last panel may have fewer columns
    const int64_t columns = std::min<int64_t>(kPanel, n - panel * kPanel);
    const bool full = columns == kPanel;
    const int64_t tiles = (m + kRows - 1) / kRows;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = m * t / tiles, rows = m * (t + 1) / tiles - row;
      float* out = to + row * n + panel * kPanel;
      const View result = full ? View{out, n} : View{edge, kPanel};
      for (int64_t at = 0; at < k; at += step) {
        const Part<T> part{weight + (panel * stored + at) * kPanel, kPanel};
        const float* scale = scales ? scales + (panel * groups + at / kGroup) * kPanel : nullptr;
        Tiles<kRows>(rows, kPanel, {from + row * k + at, k}, part, std::min(step, k - at), result, at == 0, scale);
      }
      for (int64_t r = 0; !full && r < rows; ++r)
        memcpy(out + r * n, edge + r * kPanel, columns * sizeof(float));
    }
  });
  return ffi::Error::Success();
}

static ffi::Error Multiply(ffi::ThreadPool pool, Vectors x, Vectors w, ffi::Result<Vectors> y) {
  return Product(pool, x, w, nullptr, *y);
}

static ffi::Error MultiplyHalves(ffi::ThreadPool pool, Vectors x, Halves w, ffi::Result<Vectors> y) {
  return Product(pool, x, w, nullptr, *y);
}

static ffi::Error MultiplyBytes(ffi::ThreadPool pool, Vectors x, Bytes w, Vectors scales, ffi::Result<Vectors> y) {
  return Product(pool, x, w, scales.typed_data(), *y);
}

// Largest of the scores, and the sum of their exponentials after it was subtracted.
struct Total {
  float highest, sum;
};

// Exponentials over the first `count` of score[...] less the largest, the rest up to `end` becomes 0.
static Total Exponentials(float* score, int64_t count, int64_t end) {
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
  return {highest, sum};
}

// Rotates x [depth] by angles given as cosines and sines [depth / 2] (half-split), times `scale`.
static inline void Rotate(const float* x, const float* cosine, const float* sine, int64_t depth, float scale,
                          float* to, int64_t stride) {
  const int64_t half = depth / 2;
  for (int64_t d = 0; d < half; ++d) {
    to[d * stride] = (x[d] * cosine[d] - x[d + half] * sine[d]) * scale;
    to[(d + half) * stride] = (x[d + half] * cosine[d] + x[d] * sine[d]) * scale;
  }
}

// Rotates q [B, T, N, D] and k [B, T, heads, D] by angles given as cosines and sines [B, T, D / 2]. Appends
// counts[b] of the keys and values k, v to row b of the cache (keys [B, heads, D, S], values [B, heads, S, D],
// lengths[b] of them filled), then y [B, T, N, D]: attention to all that row b held, and of the new tokens to those
// that mask [T, T] says, or if that is empty to those up to the query. Tokens beyond counts[b] get 0. D and S are
// multiples of 32.
static ffi::Error Attend(ffi::ThreadPool pool, Vectors q, Vectors k, Vectors v, Vectors cosines, Vectors sines,
                         Vectors keys, Vectors values, Counts lengths, Counts counts, Flags mask,
                         ffi::Result<Vectors> y, ffi::Result<Vectors> new_keys, ffi::Result<Vectors> new_values) {
  const int64_t batch = q.dimensions()[0], length = q.dimensions()[1], all_heads = q.dimensions()[2];
  const int64_t heads = k.dimensions()[2], depth = q.dimensions()[3], slots = keys.dimensions()[3];
  const int64_t group = all_heads / heads;
  if (new_keys->typed_data() != keys.typed_data() || new_values->typed_data() != values.typed_data())
    return ffi::Error::Internal("the cache must be updated in place");
  const float *query = q.typed_data(), *key = k.typed_data(), *value = v.typed_data();
  const float *cosine = cosines.typed_data(), *sine = sines.typed_data();
  float *past_keys = keys.typed_data(), *past_values = values.typed_data(), *out = y->typed_data();
  const int32_t *filled = lengths.typed_data(), *added = counts.typed_data();
  const bool* allowed = mask.element_count() ? mask.typed_data() : nullptr;

  const auto append = [=](int64_t i) {
    const int64_t row = i / heads, head = i % heads;
    const int64_t begin = filled[row], end = std::min(begin + added[row], slots);
    const auto place = [=](int64_t slot) { return ((row * length + slot - begin) * heads + head) * depth; };
    for (int64_t slot = begin; slot < end; ++slot) {
      const int64_t angle = (row * length + slot - begin) * depth / 2;
      memcpy(past_values + (i * slots + slot) * depth, value + place(slot), depth * sizeof(float));
      Rotate(key + place(slot), cosine + angle, sine + angle, depth, 1, past_keys + i * depth * slots + slot, slots);
    }
  };

  const int64_t blocks = (length * group + kRows - 1) / kRows;  // of queries that share a kv head
  const float scale = 1 / std::sqrt(static_cast<float>(depth));
  if (blocks > 1) InParallel(pool, batch * heads, append);
  InParallel(pool, batch * heads * blocks, [=](int64_t i) {
    if (blocks == 1) append(i);
    const int64_t pair = i / blocks, row = pair / heads, head = pair % heads;
    const int64_t first = i % blocks * kRows;
    const int rows = std::min<int64_t>(kRows, length * group - first);
    thread_local std::vector<float> memory;
    memory.resize(kRows * (2 * depth + slots));
    float *scaled = memory.data(), *result = scaled + kRows * depth, *score = result + kRows * depth;
    int64_t place[kRows], seen[kRows], most = 0;  // where query r lies, and how many slots it attends to
    for (int r = 0; r < rows; ++r) {
      const int64_t t = (first + r) / group;
      place[r] = ((row * length + t) * all_heads + head * group + (first + r) % group) * depth;
      const int64_t last = allowed ? added[row] : t + 1;
      seen[r] = t < added[row] ? std::min(filled[row] + last, slots) : 0;
      most = std::max(most, seen[r]);
      const int64_t angle = (row * length + t) * depth / 2;
      Rotate(query + place[r], cosine + angle, sine + angle, depth, scale, scaled + r * depth, 1);
    }
    const int64_t end = (most + kTile - 1) / kTile * kTile;
    Tiles<kRows>(rows, end, {scaled, depth}, {past_keys + pair * depth * slots, slots}, depth,
                 {score, slots}, true);
    for (int r = 0; allowed && r < rows; ++r)
      for (int64_t slot = filled[row]; slot < seen[r]; ++slot)
        if (!allowed[(first + r) / group * length + slot - filled[row]]) score[r * slots + slot] = -INFINITY;
    float share[kRows];
    for (int r = 0; r < rows; ++r) share[r] = seen[r] ? 1 / Exponentials(score + r * slots, seen[r], end).sum : 0;
    Tiles<kRows>(rows, depth, {score, slots}, {past_values + pair * slots * depth, depth}, most,
                 {result, depth}, true);
    for (int r = 0; r < rows; ++r)
      for (int64_t d = 0; d < depth; ++d)
        out[place[r] + d] = seen[r] ? result[r * depth + d] * share[r] : 0;
  });
  return ffi::Error::Success();
}

// The first token of the segment of each of `length` tokens; padding, which is 0, is alone.
static std::vector<int64_t> Beginnings(const int32_t* segment, int64_t length) {
  std::vector<int64_t> first(length);
  for (int64_t t = 0; t < length; ++t)
    if (segment[t] == 0)
      first[t] = t;
    else if (t && segment[t] == segment[t - 1])
      first[t] = first[t - 1];
    else
      first[t] = std::find(segment, segment + t, segment[t]) - segment;
  return first;
}

// Which of the tokens from s are of the segment of t, and not later.
static inline Integers Seen(const int32_t* segment, int64_t s, int64_t t) {
  Integers id, place;
  memcpy(&id, segment + s, sizeof id);
  for (int lane = 0; lane < kLanes; ++lane) place[lane] = lane;
  return (id == segment[t]) & (place <= static_cast<int32_t>(t - s));
}

// Sizes of training's attention: queries [batch, length, all_heads, depth], keys and values of `heads`.
struct Sizes {
  int64_t batch, length, all_heads, heads, depth;
  Sizes(Vectors q, Vectors k) {
    batch = q.dimensions()[0], length = q.dimensions()[1], all_heads = q.dimensions()[2];
    heads = k.dimensions()[1], depth = q.dimensions()[3];
  }
  int64_t Group() const { return all_heads / heads; }
  int64_t Stride() const { return all_heads * depth; }  // from one query, or result, to the next
  float Scale() const { return 1 / std::sqrt(static_cast<float>(depth)); }
  int64_t Query(int64_t row, int64_t t, int64_t head) const { return ((row * length + t) * all_heads + head) * depth; }
  int64_t Key(int64_t row, int64_t t, int64_t head) const { return ((row * length + t) * heads + head) * depth; }
  int64_t Panel(int64_t row, int64_t t, int64_t head) const { return ((row * heads + head) * length + t) * depth; }
};

// y [B, T, N, D]: attention of q [B, T, N, D] to the keys, as panels [B, K, T / 32, D, 32], and values
// [B, T, K, D] of the same segment [B, T] that are not later; and the log [B, N, T] of the sum of exponentials.
// Segment 0 is padding: 0, and infinity. T and D are multiples of 32.
static ffi::Error AttendWithin(ffi::ThreadPool pool, Vectors q, Vectors keys, Vectors v, Counts segments,
                               ffi::Result<Vectors> y, ffi::Result<Vectors> log_sums) {
  const Sizes size(q, keys);
  const float *query = q.typed_data(), *key = keys.typed_data(), *value = v.typed_data();
  float *out = y->typed_data(), *logs = log_sums->typed_data();
  const int32_t* all_segments = segments.typed_data();
  const int64_t length = size.length, depth = size.depth, blocks = (length + kQueries - 1) / kQueries;
  InParallel(pool, size.batch * size.all_heads * blocks, [=](int64_t i) {
    const int64_t head = i / blocks % size.all_heads, row = i / blocks / size.all_heads;
    const int64_t kv_head = head / size.Group();
    const int32_t* segment = all_segments + row * length;
    const std::vector<int64_t> first = Beginnings(segment, length);
    thread_local std::vector<float> memory;
    memory.resize(kRows * (2 * depth + length));
    float *scaled = memory.data(), *result = scaled + kRows * depth, *score = result + kRows * depth;
    const int64_t stop = std::min(i % blocks * kQueries + kQueries, length);
    for (int64_t t = i % blocks * kQueries; t < stop; t += kRows) {
      const int rows = std::min<int64_t>(kRows, stop - t);
      const int64_t begin = *std::min_element(&first[t], &first[t] + rows) / kPanel * kPanel;
      const int64_t end = (t + rows + kPanel - 1) / kPanel * kPanel;
      for (int r = 0; r < rows; ++r)
        for (int64_t d = 0; d < depth; ++d)
          scaled[r * depth + d] = query[size.Query(row, t + r, head) + d] * size.Scale();
      for (int64_t s = begin; s < end; s += kPanel)
        Tiles<kRows>(rows, kPanel, {scaled, depth}, {const_cast<float*>(key) + size.Panel(row, s, kv_head), kPanel},
                     depth, {score + s, length}, true);
      Total total[kRows];
      for (int r = 0; r < rows; ++r) {
        float* scores = score + r * length;
        for (int64_t s = begin; s < end; s += kLanes)
          Store(scores + s, Seen(segment, s, t + r) ? Load(scores + s) : Vector{} - INFINITY);
        total[r] = Exponentials(scores + begin, t + r + 1 - begin, end - begin);
      }
      Tiles<kRows>(rows, depth, {score + begin, length},
                   {const_cast<float*>(value) + size.Key(row, begin, kv_head), size.heads * depth}, t + rows - begin,
                   {result, depth}, true);
      for (int r = 0; r < rows; ++r) {
        const bool padding = segment[t + r] == 0;
        logs[(row * size.all_heads + head) * length + t + r] =
            padding ? INFINITY : total[r].highest + std::log(total[r].sum);
        for (int64_t d = 0; d < depth; ++d)
          out[size.Query(row, t + r, head) + d] = padding ? 0 : result[r * depth + d] / total[r].sum;
      }
    }
  });
  return ffi::Error::Success();
}

// The gradients of q, k and v from that of AttendWithin's y: k and v [B, T, K, D], and both as panels as well.
static ffi::Error AttendWithinGradient(ffi::ThreadPool pool, Vectors q, Vectors k, Vectors v, Vectors keys,
                                       Vectors values, Counts segments, Vectors y, Vectors log_sums,
                                       Vectors y_gradient, ffi::Result<Vectors> q_gradient,
                                       ffi::Result<Vectors> k_gradient, ffi::Result<Vectors> v_gradient) {
  const Sizes size(q, keys);
  float *query = q.typed_data(), *key = k.typed_data(), *result = y.typed_data(), *logs = log_sums.typed_data();
  float *key_panels = keys.typed_data(), *value_panels = values.typed_data(), *dy = y_gradient.typed_data();
  float *dq = q_gradient->typed_data(), *dk = k_gradient->typed_data(), *dv = v_gradient->typed_data();
  const int32_t* all_segments = segments.typed_data();
  const int64_t length = size.length, depth = size.depth, stride = size.Stride(), kv_stride = size.heads * depth;
  InParallel(pool, size.batch * size.heads, [=](int64_t i) {
    const int64_t row = i / size.heads, kv_head = i % size.heads;
    const int32_t* segment = all_segments + row * length;
    const std::vector<int64_t> first = Beginnings(segment, length);
    for (int64_t t = 0; t < length; ++t)
      for (float* gradient : {dk, dv}) memset(gradient + size.Key(row, t, kv_head), 0, depth * sizeof(float));
    thread_local std::vector<float> memory;
    memory.resize(2 * kQueries * kKeys);
    float *weight = memory.data(), *gradient = weight + kQueries * kKeys;  // of the scores
    for (int64_t head = kv_head * size.Group(); head < (kv_head + 1) * size.Group(); ++head)
      for (int64_t t = 0; t < length; t += kQueries) {
        const int64_t rows = std::min(kQueries, length - t), at = size.Query(row, t, head);
        const float* log_sum = logs + (row * size.all_heads + head) * length + t;
        float mean[kQueries] = {};  // of the gradients of the values that a query sees
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t d = 0; d < depth; ++d) mean[r] += result[at + r * stride + d] * dy[at + r * stride + d];
        const int64_t begin = *std::min_element(&first[t], &first[t] + rows) / kPanel * kPanel;
        for (int64_t s = begin; s < t + rows; s += kKeys) {
          const int64_t columns = std::min({kKeys, length - s, (t + rows - s + kPanel - 1) / kPanel * kPanel});
          const int64_t kv_at = size.Key(row, s, kv_head);
          for (int64_t r = 0; r < rows; r += kRows) {
            const int some = std::min<int64_t>(kRows, rows - r);
            for (int64_t c = 0; c < columns; c += kPanel) {
              const int64_t panel = size.Panel(row, s + c, kv_head), to = r * kKeys + c;
              Tiles<kRows>(some, kPanel, {query + at + r * stride, stride}, {key_panels + panel, kPanel}, depth,
                           {weight + to, kKeys}, true);
              Tiles<kRows>(some, kPanel, {dy + at + r * stride, stride}, {value_panels + panel, kPanel}, depth,
                           {gradient + to, kKeys}, true);
            }
          }
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < columns; c += kLanes) {
              float *p = weight + r * kKeys + c, *dp = gradient + r * kKeys + c;
              const Vector score = Load(p) * size.Scale() - log_sum[r];
              const Vector share = Exp(Seen(segment, s + c, t + r) ? score : Vector{} - INFINITY);
              Store(p, share);
              Store(dp, share * (Load(dp) - mean[r]) * size.Scale());
            }
          for (int64_t c = 0; c < columns; c += kRows) {
            const int some = std::min<int64_t>(kRows, columns - c);
            Tiles<kRows, true>(some, depth, {weight + c, kKeys}, {dy + at, stride}, rows,
                               {dv + kv_at + c * kv_stride, kv_stride}, false);
            Tiles<kRows, true>(some, depth, {gradient + c, kKeys}, {query + at, stride}, rows,
                               {dk + kv_at + c * kv_stride, kv_stride}, false);
          }
          for (int64_t r = 0; r < rows; r += kRows)
            Tiles<kRows>(std::min<int64_t>(kRows, rows - r), depth, {gradient + r * kKeys, kKeys},
                         {key + kv_at, kv_stride}, columns, {dq + at + r * stride, stride}, s == begin);
        }
      }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(multiply, Multiply);
XLA_FFI_DEFINE_HANDLER_SYMBOL(multiply_bfloat16, MultiplyHalves);
XLA_FFI_DEFINE_HANDLER_SYMBOL(multiply_int8, MultiplyBytes);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attend, Attend);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attend_within, AttendWithin);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attend_within_gradient, AttendWithinGradient);
