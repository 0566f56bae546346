// Convolution with K = 3 or 2 taps an axis for CPUs: forward, gradient to the
// input, gradient to the weights. float32, channels last.
//
//   x [N, D, H, W, Ci],  weights [K, K, K, Ci, Co],  y [N, D', H', W', Co]
//
// with P zeros before and after each axis of x, so D' = D + 2 P - K + 1: P = 1
// keeps the grid of K = 3. K = 2 serves the convolution of an upsampled x.
//
// Every output row (n, d, h) is the sum over K^2 input rows (the taps along
// D and H), each convolved along W by K taps. A tile of T voxels times V
// vectors of output channels stays in registers while the rows stream by; one
// broadcast input value serves the K taps along W.
//
// The work is cut by the shapes alone and each sum has one fixed order, so the
// same input gives the same bits whatever the number and timing of threads.

#include <algorithm>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

using dvhflax::Index;
using dvhflax::Parallel;
namespace ffi = xla::ffi;

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
// value in every lane. Less 0, not plus 0: that would be an addition, since it
// makes 0 of -0.
template <int L>
inline Vector<L> Broadcast(float value) {
  return value - Vector<L>{};
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

// D, H and W of x, and of y as `to_d`, `to_h` and `to_w`.
struct Shape {
  Index n, d, h, w, to_d, to_h, to_w, padding, in, out;
};

// ---------------------------------------------------------------- forward

// K^2 input rows with their zeros at either end; null where a row lies outside
// of the grid.
template <int K>
using Rows = const float* [K * K];

// y[t, v] of T voxels from `voxel` on and V vectors of output channels.
// `weights` are packed [K^3][Ci][V * L].
template <int K, int L, int V, int T>
inline void ForwardTile(const Rows<K>& rows, Index voxel, Index in,
                        const float* weights, float* y, Index out,
                        Index valid) {
  Vector<L> sum[T][V] = {};
  const Index tap = in * V * L;
  for (int r = 0; r < K * K; ++r) {
    if (rows[r] == nullptr) continue;
    const float* x = rows[r] + voxel * in;
    const float* packed = weights + K * r * tap;
    for (Index c = 0; c < in; ++c, packed += V * L) {
      Vector<L> weight[K][V];
      for (int k = 0; k < K; ++k) {
        for (int v = 0; v < V; ++v) {
          weight[k][v] = Load<L>(packed + k * tap + v * L);
        }
      }
      // Input voxel u feeds outputs u, u - 1, ... u - K + 1.
#pragma GCC unroll 32
      for (int u = 0; u < T + K - 1; ++u) {
        const Vector<L> value = Broadcast<L>(x[u * in + c]);
#pragma GCC unroll 3
        for (int k = 0; k < K; ++k) {
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

// Voxels of a tile: the sums, the weights of K taps and one input value share
// the registers.
constexpr int TileVoxels(int taps, int vectors) {
  const int voxels = (kRegisters - 1) / vectors - taps;
  return voxels >= 16 ? 16 : voxels >= 12 ? 12 : voxels >= 8 ? 8
         : voxels >= 4 ? 4 : voxels >= 2 ? 2 : 1;
}

// Tiles of T voxels, then ever smaller ones for what is left of the row.
template <int K, int L, int V, int T>
void ForwardRow(const Rows<K>& rows, Index voxel, Index width, Index in,
                const float* weights, float* y, Index out, Index valid) {
  for (; voxel + T <= width; voxel += T) {
    ForwardTile<K, L, V, T>(rows, voxel, in, weights, y + voxel * out, out, valid);
  }
  if constexpr (T > 1) {
    constexpr int kSmaller = T == 12 ? 8 : T / 2;
    ForwardRow<K, L, V, kSmaller>(rows, voxel, width, in, weights, y, out,
                                  valid);
  }
}

// Weights of output channels [first, first + block) as [K^3][Ci][block], zero
// beyond Co. Flipped: the convolution that takes gradients of y to x, whose
// weights are those of the forward one reversed and transposed.
void Pack(const float* weights, Index taps, const Shape& s, Index first,
          Index block, bool flipped, float* packed) {
  for (Index k = 0; k < taps; ++k) {
    for (Index c = 0; c < s.in; ++c) {
      for (Index o = 0; o < block; ++o) {
        const Index out = first + o;
        float value = 0;
        if (out < s.out) {
          value = flipped ? weights[((taps - 1 - k) * s.out + out) * s.in + c]
                          : weights[(k * s.in + c) * s.out + out];
        }
        *packed++ = value;
      }
    }
  }
}

template <int K, int L, int V>
void Forward(ffi::ThreadPool& pool, const Shape& s, const float* x,
             const float* weights, bool flipped, float* y) {
  constexpr Index kBlock = L * V;
  const Index blocks = (s.out + kBlock - 1) / kBlock;
  constexpr Index kTaps = K * K * K;
  const Index packed_size = kTaps * s.in * kBlock;
  std::vector<float> packed(blocks * packed_size);
  Parallel(pool, blocks, [&](Index b) {
    Pack(weights, kTaps, s, b * kBlock, kBlock, flipped,
         &packed[b * packed_size]);
  });

  // A task copies the input rows of `high` output rows once, with their zero
  // borders, into a buffer that fits the second-level cache.
  const Index high = std::min<Index>(s.to_h, 8);
  const Index strips = (s.to_h + high - 1) / high;
  const Index border = s.padding * s.in;
  const Index padded_row = s.w * s.in + 2 * border;
  Parallel(pool, s.n * s.to_d * strips * blocks, [&](Index task) {
    const Index block = task % blocks;
    const Index first = task / blocks % strips * high;
    const Index d = task / blocks / strips % s.to_d;
    const Index n = task / blocks / strips / s.to_d;
    const Index last = std::min(s.to_h, first + high);
    static thread_local std::vector<float> buffer;
    buffer.resize(K * (high + K - 1) * padded_row);
    // Row j above `first`, of the slice i above d, both less the padding.
    auto slot = [&](Index i, Index j) {
      return &buffer[(i * (high + K - 1) + j) * padded_row];
    };
    auto inside = [&](Index i, Index j) {
      const Index from_d = d + i - s.padding, from_h = first + j - s.padding;
      return from_d >= 0 && from_d < s.d && from_h >= 0 && from_h < s.h;
    };
    for (Index i = 0; i < K; ++i) {
      for (Index j = 0; j < last - first + K - 1; ++j) {
        if (!inside(i, j)) continue;
        float* to = slot(i, j);
        const Index row = (n * s.d + d + i - s.padding) * s.h + first + j;
        const float* from = x + (row - s.padding) * s.w * s.in;
        std::fill_n(to, border, 0.f);
        std::memcpy(to + border, from, sizeof(float) * s.w * s.in);
        std::fill_n(to + border + s.w * s.in, border, 0.f);
      }
    }
    const Index valid = s.out - block * kBlock;
    for (Index h = first; h < last; ++h) {
      Rows<K> rows;
      for (Index r = 0; r < K * K; ++r) {
        const Index i = r / K, j = h - first + r % K;
        rows[r] = inside(i, j) ? slot(i, j) : nullptr;
      }
      const Index row = (n * s.to_d + d) * s.to_h + h;
      float* to = y + row * s.to_w * s.out + block * kBlock;
      ForwardRow<K, L, V, TileVoxels(K, V)>(rows, 0, s.to_w, s.in,
                                            &packed[block * packed_size], to,
                                            s.out, valid);
    }
  });
}

template <int K>
void Convolve(ffi::ThreadPool& pool, const Shape& s, const float* x,
              const float* weights, bool flipped, float* y) {
  if constexpr (kLanes == 16) {
    // Half vectors waste nothing on eight channels.
    if (s.out <= 8) {
      return Forward<K, 8, 1>(pool, s, x, weights, flipped, y);
    }
    if (s.out > 32 && s.w <= 4) {
      return Forward<K, 16, 4>(pool, s, x, weights, flipped, y);
    }
  }
  if (s.out <= kLanes) {
    Forward<K, kLanes, 1>(pool, s, x, weights, flipped, y);
  } else {
    Forward<K, kLanes, 2>(pool, s, x, weights, flipped, y);
  }
}

// -------------------------------------------------------- weight gradient

// Adds to sums[k][t][v] = sum over w of x[w + k - P, t] * dy[w, v], for T input
// channels, V vectors of output channels and the K taps along W, over `rows`
// rows. `sums` is [K][Ci][Co], dense.
template <int K, int L, int V, int T>
inline void GradientTile(const float* x, const float* dy, Index rows,
                         const Shape& s, Index valid, float* sums) {
  const Index tap = s.in * s.out;
  const bool whole = V * L <= valid;
  auto load = [&](const float* from, int v) {
    if (whole) return Load<L>(from + v * L);
    return v * L < valid ? LoadFirst<L>(from + v * L, valid - v * L)
                         : Vector<L>{};
  };
  Vector<L> sum[K][T][V];
  for (int k = 0; k < K; ++k) {
    for (int t = 0; t < T; ++t) {
      for (int v = 0; v < V; ++v) {
        sum[k][t][v] = load(sums + k * tap + t * s.out, v);
      }
    }
  }
  for (Index h = 0; h < rows; ++h) {
    const float* from = x + h * s.w * s.in;
    const float* gradient = dy + h * s.to_w * s.out;
    // The dy that taps 0, 1, ... bring the input voxel to: w + P, w + P - 1...
    Vector<L> window[K][V] = {};
    Index next = 0;
    auto advance = [&] {
      for (int k = K - 1; k > 0; --k) {
        for (int v = 0; v < V; ++v) window[k][v] = window[k - 1][v];
      }
      for (int v = 0; v < V; ++v) {
        window[0][v] =
            next < s.to_w ? load(gradient + next * s.out, v) : Vector<L>{};
      }
      ++next;
    };
    for (Index p = 0; p < s.padding; ++p) advance();
    for (Index w = 0; w < s.w; ++w, from += s.in) {
      advance();
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const Vector<L> value = Broadcast<L>(from[t]);
#pragma GCC unroll 3
        for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[k][t][v] += value * window[k][v];
        }
      }
    }
  }
  for (int k = 0; k < K; ++k) {
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

template <int K, int L, int V, int T>
void GradientChannels(const float* x, const float* dy, Index rows,
                      const Shape& s, Index valid, Index channel, Index end,
                      float* sums) {
  for (; channel + T <= end; channel += T) {
    GradientTile<K, L, V, T>(x + channel, dy, rows, s, valid,
                             sums + channel * s.out);
  }
  if constexpr (T > 1) {
    GradientChannels<K, L, V, T / 2>(x, dy, rows, s, valid, channel, end,
                                     sums);
  }
}

// Taps [first_tap, last_tap) along D and H, input channels [channel, end), of
// output rows [first, last) of slice (n, d). `sums` is [K, K, K, Ci, Co].
template <int K>
void GradientStrip(const Shape& s, const float* x, const float* dy, Index n,
                   Index d, Index first, Index last, Index first_tap,
                   Index last_tap, Index channel, Index end, float* sums) {
  for (Index r = first_tap; r < last_tap; ++r) {
    const Index from_d = d + r / K - s.padding, shift = r % K - s.padding;
    if (from_d < 0 || from_d >= s.d) continue;
    const Index begin = std::max(first, -shift);
    const Index rows = std::min(last, s.h - shift) - begin;
    if (rows <= 0) continue;
    const float* in = x + ((n * s.d + from_d) * s.h + begin + shift) * s.w * s.in;
    const float* out =
        dy + ((n * s.to_d + d) * s.to_h + begin) * s.to_w * s.out;
    float* to = sums + r * K * s.in * s.out;
    Index o = 0;
    if constexpr (kLanes == 16) {
      for (; o + 32 <= s.out; o += 32) {
        GradientChannels<K, 16, 2, 4>(in, out + o, rows, s, 32, channel, end,
                                   to + o);
      }
    }
    constexpr int kChannels = kRegisters == 32 ? 8 : 4;
    for (; o + kLanes <= s.out; o += kLanes) {
      GradientChannels<K, kLanes, 1, kChannels>(in, out + o, rows, s, kLanes,
                                             channel, end, to + o);
    }
    const Index rest = s.out - o;
    if (rest == 0) continue;
    if constexpr (kLanes == 16) {
      if (rest <= 8) {
        GradientChannels<K, 8, 1, kChannels>(in, out + o, rows, s, rest,
                                             channel, end, to + o);
        continue;
      }
    }
    GradientChannels<K, kLanes, 1, kChannels>(in, out + o, rows, s, rest,
                                              channel, end, to + o);
  }
}

template <int K>
void WeightGradient(ffi::ThreadPool& pool, const Shape& s, const float* x,
                    const float* dy, float* gradient) {
  const Index size = K * K * K * s.in * s.out;
  const Index voxels = s.n * s.to_d * s.to_h * s.to_w;
  if (voxels < 8192) {
    // Many weights, few voxels: each task owns some weights.
    constexpr Index kChannels = 32;
    const Index groups = (s.in + kChannels - 1) / kChannels;
    std::fill_n(gradient, size, 0.f);
    Parallel(pool, K * K * groups, [&](Index task) {
      const Index tap = task / groups, channel = task % groups * kChannels;
      const Index end = std::min(s.in, channel + kChannels);
      for (Index n = 0; n < s.n; ++n) {
        for (Index d = 0; d < s.to_d; ++d) {
          GradientStrip<K>(s, x, dy, n, d, 0, s.to_h, tap, tap + 1, channel,
                           end, gradient);
        }
      }
    });
    return;
  }
  // Many voxels: each task sums over some rows into sums of its own, which are
  // then added in order. At most 64 of them and 64 MB.
  const Index strip = std::clamp<Index>(
      16384 / (s.to_w * std::max(s.in, s.out)), 1, s.to_h);
  const Index strips = (s.to_h + strip - 1) / strip;
  const Index pieces = s.n * s.to_d * strips;
  const Index tasks = std::min(
      pieces, std::clamp<Index>((Index{1} << 24) / size, 1, 64));
  std::vector<float> partial(tasks * size);
  Parallel(pool, tasks, [&](Index task) {
    for (Index p = pieces * task / tasks; p < pieces * (task + 1) / tasks;
         ++p) {
      const Index first = p % strips * strip;
      GradientStrip<K>(s, x, dy, p / strips / s.to_d, p / strips % s.to_d,
                       first, std::min(s.to_h, first + strip), 0, K * K, 0,
                       s.in, &partial[task * size]);
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

using Sizes = ffi::Span<const Index>;

// The shape of a convolution of `taps` taps, if there is such a one.
bool MakeShape(Sizes in, Sizes out, Index taps, Index channels, Index features,
               Shape* shape) {
  if (in.size() != 5 || out.size() != 5 || in[0] != out[0] ||
      in[4] != channels || out[4] != features || taps < 2 || taps > 3) {
    return false;
  }
  const Index padding = (out[3] - in[3] + taps - 1) / 2;
  for (int axis = 1; axis < 4; ++axis) {
    if (out[axis] != in[axis] + 2 * padding - taps + 1) return false;
  }
  *shape = {in[0],  in[1],   in[2],    in[3],   out[1],
            out[2], out[3], padding, channels, features};
  return padding == 0 || padding == 1;
}

ffi::Error RunForward(ffi::ThreadPool pool, Buffer x, Buffer weights,
                      Result y, bool flipped) {
  const auto k = weights.dimensions();
  const Index from = k[flipped ? 4 : 3], to = k[flipped ? 3 : 4];
  Shape shape;
  if (!MakeShape(x.dimensions(), y->dimensions(), k[0], from, to, &shape)) {
    return ffi::Error::InvalidArgument("convolution: shapes do not fit");
  }
  (k[0] == 3 ? Convolve<3> : Convolve<2>)(pool, shape, x.typed_data(),
                                          weights.typed_data(), flipped,
                                          y->typed_data());
  return ffi::Error::Success();
}

ffi::Error RunWeightGradient(ffi::ThreadPool pool, Buffer x, Buffer dy,
                             Result gradient) {
  const auto k = gradient->dimensions();
  Shape shape;
  if (!MakeShape(x.dimensions(), dy.dimensions(), k[0], k[3], k[4], &shape)) {
    return ffi::Error::InvalidArgument("weight gradient: shapes do not fit");
  }
  (k[0] == 3 ? WeightGradient<3> : WeightGradient<2>)(
      pool, shape, x.typed_data(), dy.typed_data(), gradient->typed_data());
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
