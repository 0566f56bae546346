// 3x3x3 convolution with zero padding for CPUs: forward, gradient to the
// input, gradient to the weights. float32, channels last.
//
//   x [N, D, H, W, Ci],  weights [3, 3, 3, Ci, Co],  y [N, D, H, W, Co]
//
// Every output row (n, d, h) is the sum over nine input rows (the taps along
// D and H), each convolved along W by three taps. A tile of T voxels times V
// vectors of output channels stays in registers while the rows stream by; one
// broadcast input value serves the three taps along W.
//
// The work is cut by the shapes alone and each sum has one fixed order, so the
// same input gives the same bits whatever the number and timing of threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr int kLanes = 16;  // 32 registers
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRegisters = 16;
#else
constexpr int kLanes = 4;
constexpr int kRegisters = 16;
#endif

// A vector of L floats that may lie anywhere in memory.
template <int L>
struct Lanes {
  typedef float Vector __attribute__((vector_size(4 * L), aligned(4)));
};
template <int L>
using Vector = typename Lanes<L>::Vector;

template <int L>
inline Vector<L> Load(const float* from) {
  return *reinterpret_cast<const Vector<L>*>(from);
}
template <int L>
inline void Store(float* to, Vector<L> value) {
  *reinterpret_cast<Vector<L>*>(to) = value;
}
template <int L>
inline void StoreFirst(float* to, Vector<L> value, Index count) {
  float lanes[L];
  Store<L>(lanes, value);
  std::memcpy(to, lanes, sizeof(float) * std::min<Index>(count, L));
}
template <int L>
inline Vector<L> LoadFirst(const float* from, Index count) {
  float lanes[L] = {};
  std::memcpy(lanes, from, sizeof(float) * std::min<Index>(count, L));
  return Load<L>(lanes);
}

struct Shape {
  Index n, d, h, w, in, out;
};

// Runs task(0) ... task(tasks - 1) on XLA's threads and on the caller's. A
// worker that starts late finds nothing left to do and the caller takes what
// nobody has taken, so that waiting here cannot deadlock.
template <class Task>
void Parallel(ffi::ThreadPool& pool, Index tasks, Task task) {
  struct State {
    State(Index tasks, Task task) : tasks(tasks), task(std::move(task)) {}
    const Index tasks;
    Task task;
    std::atomic<Index> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto state = std::make_shared<State>(tasks, std::move(task));
  auto work = [state] {
    for (Index i; (i = state->next++) < state->tasks;) {
      state->task(i);
      if (++state->done == state->tasks) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->all_done.notify_all();
      }
    }
  };
  const Index workers = std::min<Index>(pool.num_threads(), tasks);
  for (Index i = 1; i < workers; ++i) {
    pool.Schedule(std::function<void()>(work));
  }
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == state->tasks; });
}

// ---------------------------------------------------------------- forward

// Nine input rows with a zero voxel at either end; null where a row lies
// outside of the grid.
using Rows = const float* [9];

// y[t, v] of T voxels from `voxel` on and V vectors of output channels.
// `weights` are packed [27][Ci][V * L].
template <int L, int V, int T>
inline void ForwardTile(const Rows& rows, Index voxel, Index in,
                        const float* weights, float* y, Index out,
                        Index valid) {
  Vector<L> sum[T][V] = {};
  const Index tap = in * V * L;
  for (int r = 0; r < 9; ++r) {
    if (rows[r] == nullptr) continue;
    const float* x = rows[r] + voxel * in;
    const float* packed = weights + 3 * r * tap;
    for (Index c = 0; c < in; ++c, packed += V * L) {
      Vector<L> weight[3][V];
      for (int k = 0; k < 3; ++k) {
        for (int v = 0; v < V; ++v) {
          weight[k][v] = Load<L>(packed + k * tap + v * L);
        }
      }
      // Input voxel u feeds outputs u, u - 1 and u - 2.
#pragma GCC unroll 32
      for (int u = 0; u < T + 2; ++u) {
        const Vector<L> value = Vector<L>{} + x[u * in + c];
#pragma GCC unroll 3
        for (int k = 0; k < 3; ++k) {
          if (u - k < 0 || u - k >= T) continue;
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[u - k][v] += value * weight[k][v];
        }
      }
    }
  }
  for (int t = 0; t < T; ++t) {
    for (int v = 0; v < V; ++v) {
      float* to = y + t * out + v * L;
      if ((v + 1) * L <= valid) {
        Store<L>(to, sum[t][v]);
      } else if (v * L < valid) {
        StoreFirst<L>(to, sum[t][v], valid - v * L);
      }
    }
  }
}

// Voxels of a tile: the sums, the weights of three taps and one input value
// share the registers.
constexpr int TileVoxels(int vectors) {
  const int voxels = (kRegisters - 1) / vectors - 3;
  return voxels >= 16 ? 16 : voxels >= 12 ? 12 : voxels >= 8 ? 8
         : voxels >= 4 ? 4 : voxels >= 2 ? 2 : 1;
}

// Tiles of T voxels, then ever smaller ones for what is left of the row.
template <int L, int V, int T>
void ForwardRow(const Rows& rows, Index voxel, Index width, Index in,
                const float* weights, float* y, Index out, Index valid) {
  for (; voxel + T <= width; voxel += T) {
    ForwardTile<L, V, T>(rows, voxel, in, weights, y + voxel * out, out, valid);
  }
  if constexpr (T > 1) {
    constexpr int kSmaller = T == 12 ? 8 : T / 2;
    ForwardRow<L, V, kSmaller>(rows, voxel, width, in, weights, y, out, valid);
  }
}

// Weights of output channels [first, first + block) as [27][Ci][block], zero
// beyond Co. Flipped: the convolution that takes gradients of y to x, whose
// weights are those of the forward one reversed and transposed.
void Pack(const float* weights, const Shape& s, Index first, Index block,
          bool flipped, float* packed) {
  for (Index k = 0; k < 27; ++k) {
    for (Index c = 0; c < s.in; ++c) {
      for (Index o = 0; o < block; ++o) {
        const Index out = first + o;
        float value = 0;
        if (out < s.out) {
          value = flipped ? weights[((26 - k) * s.out + out) * s.in + c]
                          : weights[(k * s.in + c) * s.out + out];
        }
        *packed++ = value;
      }
    }
  }
}

template <int L, int V>
void Forward(ffi::ThreadPool& pool, const Shape& s, const float* x,
             const float* weights, bool flipped, float* y) {
  constexpr Index kBlock = L * V;
  const Index blocks = (s.out + kBlock - 1) / kBlock;
  const Index packed_size = 27 * s.in * kBlock;
  std::vector<float> packed(blocks * packed_size);
  Parallel(pool, blocks, [&](Index b) {
    Pack(weights, s, b * kBlock, kBlock, flipped, &packed[b * packed_size]);
  });

  // A task copies the input rows of `high` output rows once, with their zero
  // borders, into a buffer that fits the second-level cache.
  const Index high = std::min<Index>(s.h, 8);
  const Index strips = (s.h + high - 1) / high;
  const Index padded_row = (s.w + 2) * s.in;
  Parallel(pool, s.n * s.d * strips * blocks, [&](Index task) {
    const Index block = task % blocks;
    const Index first = task / blocks % strips * high;
    const Index d = task / blocks / strips % s.d;
    const Index n = task / blocks / strips / s.d;
    const Index last = std::min(s.h, first + high);
    static thread_local std::vector<float> buffer;
    buffer.resize(3 * (high + 2) * padded_row);
    auto slot = [&](Index i, Index h) {
      return &buffer[(i * (high + 2) + h - first + 1) * padded_row];
    };
    auto inside = [&](Index i, Index h) {
      return d + i >= 1 && d + i <= s.d && h >= 0 && h < s.h;
    };
    for (Index i = 0; i < 3; ++i) {
      for (Index h = first - 1; h <= last; ++h) {
        if (!inside(i, h)) continue;
        float* to = slot(i, h);
        const float* from =
            x + ((n * s.d + d + i - 1) * s.h + h) * s.w * s.in;
        std::fill_n(to, s.in, 0.f);
        std::memcpy(to + s.in, from, sizeof(float) * s.w * s.in);
        std::fill_n(to + (s.w + 1) * s.in, s.in, 0.f);
      }
    }
    const Index valid = s.out - block * kBlock;
    for (Index h = first; h < last; ++h) {
      Rows rows;
      for (Index r = 0; r < 9; ++r) {
        const Index i = r / 3, row = h + r % 3 - 1;
        rows[r] = inside(i, row) ? slot(i, row) : nullptr;
      }
      float* to = y + ((n * s.d + d) * s.h + h) * s.w * s.out + block * kBlock;
      ForwardRow<L, V, TileVoxels(V)>(rows, 0, s.w, s.in,
                                      &packed[block * packed_size], to, s.out,
                                      valid);
    }
  });
}

void Convolve(ffi::ThreadPool& pool, const Shape& s, const float* x,
              const float* weights, bool flipped, float* y) {
  if constexpr (kLanes == 16) {
    // Half vectors waste nothing on eight channels.
    if (s.out <= 8) return Forward<8, 1>(pool, s, x, weights, flipped, y);
    if (s.out > 32 && s.w <= 4) {
      return Forward<16, 4>(pool, s, x, weights, flipped, y);
    }
  }
  if (s.out <= kLanes) {
    Forward<kLanes, 1>(pool, s, x, weights, flipped, y);
  } else {
    Forward<kLanes, 2>(pool, s, x, weights, flipped, y);
  }
}

// -------------------------------------------------------- weight gradient

// Adds to sums[k][t][v] = sum over w of x[w + k - 1, t] * dy[w, v], for T input
// channels, V vectors of output channels and the three taps along W, over
// `rows` rows. `sums` is [3][Ci][Co], dense.
template <int L, int V, int T>
inline void GradientTile(const float* x, const float* dy, Index rows,
                         const Shape& s, Index valid, float* sums) {
  const Index tap = s.in * s.out;
  const bool whole = V * L <= valid;
  auto load = [&](const float* from, int v) {
    if (whole) return Load<L>(from + v * L);
    return v * L < valid ? LoadFirst<L>(from + v * L, valid - v * L)
                         : Vector<L>{};
  };
  Vector<L> sum[3][T][V];
  for (int k = 0; k < 3; ++k) {
    for (int t = 0; t < T; ++t) {
      for (int v = 0; v < V; ++v) {
        sum[k][t][v] = load(sums + k * tap + t * s.out, v);
      }
    }
  }
  for (Index h = 0; h < rows; ++h) {
    const float* from = x + h * s.w * s.in;
    const float* gradient = dy + h * s.w * s.out;
    // dy right of, at and left of the input voxel: taps 0, 1 and 2.
    Vector<L> right[V], here[V], left[V];
    for (int v = 0; v < V; ++v) {
      left[v] = Vector<L>{};
      here[v] = load(gradient, v);
    }
    for (Index w = 0; w < s.w; ++w, from += s.in) {
      gradient += s.out;
      for (int v = 0; v < V; ++v) {
        right[v] = w + 1 < s.w ? load(gradient, v) : Vector<L>{};
      }
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const Vector<L> value = Vector<L>{} + from[t];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          sum[0][t][v] += value * right[v];
          sum[1][t][v] += value * here[v];
          sum[2][t][v] += value * left[v];
        }
      }
      for (int v = 0; v < V; ++v) {
        left[v] = here[v];
        here[v] = right[v];
      }
    }
  }
  for (int k = 0; k < 3; ++k) {
    for (int t = 0; t < T; ++t) {
      for (int v = 0; v < V; ++v) {
        float* to = sums + k * tap + t * s.out + v * L;
        if (whole) {
          Store<L>(to, sum[k][t][v]);
        } else if (v * L < valid) {
          StoreFirst<L>(to, sum[k][t][v], valid - v * L);
        }
      }
    }
  }
}

template <int L, int V, int T>
void GradientChannels(const float* x, const float* dy, Index rows,
                      const Shape& s, Index valid, Index channel, Index end,
                      float* sums) {
  for (; channel + T <= end; channel += T) {
    GradientTile<L, V, T>(x + channel, dy, rows, s, valid,
                          sums + channel * s.out);
  }
  if constexpr (T > 1) {
    GradientChannels<L, V, T / 2>(x, dy, rows, s, valid, channel, end, sums);
  }
}

// Taps [first_tap, last_tap) along D and H, input channels [channel, end), of
// output rows [first, last) of slice (n, d). `sums` is [3, 3, 3, Ci, Co].
void GradientStrip(const Shape& s, const float* x, const float* dy, Index n,
                   Index d, Index first, Index last, Index first_tap,
                   Index last_tap, Index channel, Index end, float* sums) {
  for (Index r = first_tap; r < last_tap; ++r) {
    const Index from_d = d + r / 3 - 1, shift = r % 3 - 1;
    if (from_d < 0 || from_d >= s.d) continue;
    const Index begin = std::max(first, -shift);
    const Index rows = std::min(last, s.h - shift) - begin;
    if (rows <= 0) continue;
    const float* in = x + ((n * s.d + from_d) * s.h + begin + shift) * s.w * s.in;
    const float* out = dy + ((n * s.d + d) * s.h + begin) * s.w * s.out;
    float* to = sums + r * 3 * s.in * s.out;
    Index o = 0;
    if constexpr (kLanes == 16) {
      for (; o + 32 <= s.out; o += 32) {
        GradientChannels<16, 2, 4>(in, out + o, rows, s, 32, channel, end,
                                   to + o);
      }
    }
    constexpr int kChannels = kRegisters == 32 ? 8 : 4;
    for (; o + kLanes <= s.out; o += kLanes) {
      GradientChannels<kLanes, 1, kChannels>(in, out + o, rows, s, kLanes,
                                             channel, end, to + o);
    }
    const Index rest = s.out - o;
    if (rest == 0) continue;
    if (kLanes == 16 && rest <= 8) {
      GradientChannels<8, 1, kChannels>(in, out + o, rows, s, rest, channel,
                                        end, to + o);
    } else {
      GradientChannels<kLanes, 1, kChannels>(in, out + o, rows, s, rest,
                                             channel, end, to + o);
    }
  }
}

void WeightGradient(ffi::ThreadPool& pool, const Shape& s, const float* x,
                    const float* dy, float* gradient) {
  const Index size = 27 * s.in * s.out;
  const Index voxels = s.n * s.d * s.h * s.w;
  if (voxels < 8192) {
    // Many weights, few voxels: each task owns some weights.
    constexpr Index kChannels = 32;
    const Index groups = (s.in + kChannels - 1) / kChannels;
    std::fill_n(gradient, size, 0.f);
    Parallel(pool, 9 * groups, [&](Index task) {
      const Index tap = task / groups, channel = task % groups * kChannels;
      const Index end = std::min(s.in, channel + kChannels);
      for (Index n = 0; n < s.n; ++n) {
        for (Index d = 0; d < s.d; ++d) {
          GradientStrip(s, x, dy, n, d, 0, s.h, tap, tap + 1, channel, end,
                        gradient);
        }
      }
    });
    return;
  }
  // Many voxels: each task sums over some rows into sums of its own, which are
  // then added in order. At most 64 of them and 64 MB.
  const Index strip = std::clamp<Index>(
      16384 / (s.w * std::max(s.in, s.out)), 1, s.h);
  const Index strips = (s.h + strip - 1) / strip;
  const Index pieces = s.n * s.d * strips;
  const Index tasks = std::min(
      pieces, std::clamp<Index>((Index{1} << 24) / size, 1, 64));
  std::vector<float> partial(tasks * size);
  Parallel(pool, tasks, [&](Index task) {
    for (Index p = pieces * task / tasks; p < pieces * (task + 1) / tasks;
         ++p) {
      const Index first = p % strips * strip;
      GradientStrip(s, x, dy, p / strips / s.d, p / strips % s.d, first,
                    std::min(s.h, first + strip), 0, 9, 0, s.in,
                    &partial[task * size]);
    }
  });
  const Index share = (size + 15) / 16;
  Parallel(pool, 16, [&](Index part) {
    const Index begin = part * share, end = std::min(size, begin + share);
    for (Index e = begin; e < end; ++e) gradient[e] = partial[e];
    for (Index task = 1; task < tasks; ++task) {
      const float* from = &partial[task * size];
      for (Index e = begin; e < end; ++e) gradient[e] += from[e];
    }
  });
}

// Whether this processor has the instructions this file was compiled for.
bool Supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
#else
  return true;
#endif
}

// ------------------------------------------------------------ XLA handlers

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

ffi::Error RunForward(ffi::ThreadPool pool, Buffer x, Buffer weights,
                      Result y, bool flipped) {
  const auto in = x.dimensions(), out = y->dimensions();
  const auto k = weights.dimensions();
  const Index from = k[flipped ? 4 : 3], to = k[flipped ? 3 : 4];
  if (in.size() != 5 || out.size() != 5 || in[4] != from || out[4] != to) {
    return ffi::Error::InvalidArgument(
        "convolution: x and weights differ in channels");
  }
  Convolve(pool, {in[0], in[1], in[2], in[3], from, to}, x.typed_data(),
           weights.typed_data(), flipped, y->typed_data());
  return ffi::Error::Success();
}

ffi::Error RunWeightGradient(ffi::ThreadPool pool, Buffer x, Buffer dy,
                             Result gradient) {
  const auto in = x.dimensions(), out = dy.dimensions();
  if (in.size() != 5 || out.size() != 5 || in[3] != out[3]) {
    return ffi::Error::InvalidArgument("convolution: x and dy differ in shape");
  }
  WeightGradient(pool, {in[0], in[1], in[2], in[3], in[4], out[4]},
                 x.typed_data(), dy.typed_data(), gradient->typed_data());
  return ffi::Error::Success();
}

}  // namespace

extern "C" int DvhflaxSupported() { return Supported() ? 1 : 0; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxConvolution, RunForward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>()
                                  .Attr<bool>("flipped"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxConvolutionWeightGradient,
                              RunWeightGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>());
