// Gradient of a convolution to its weights; shapes as in shape.h.
//
// The work is cut by the shapes alone and each sum has one fixed order, so the
// same input gives the same bits whatever the number and timing of threads.

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "shape.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

using namespace dvhflax;
namespace ffi = xla::ffi;

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
    const float* in =
        x + ((n * s.d + from_d) * s.h + begin + shift) * s.w * s.in;
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

ffi::Error RunWeightGradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                             ffi::Buffer<ffi::F32> dy,
                             ffi::ResultBuffer<ffi::F32> gradient) {
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxConvolutionWeightGradient,
                              RunWeightGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
