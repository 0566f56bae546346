// Convolution with K = 3 or 2 taps an axis for CPUs, float32, channels last:
// forward, and with `flipped` weights the gradient to its input; shapes as in
// shape.h.
//
// Every output row (n, d, h) is the sum over K^2 input rows (the taps along
// D and H), each convolved along W by K taps. A tile of T voxels times V
// vectors of output channels stays in registers while the rows stream by; one
// broadcast input value serves the K taps along W.
//
// A convolution of K = 3 over voxels that were each repeated twice along every
// axis meets, for the fine voxel 2 i + p, only the coarse voxels i - 1 + p and
// i + p: it is one of K = 2 over the coarse grid, with eight times the output
// channels, one set for each phase p:
//
//   fine(2 d + p, 2 h + q, 2 w + r) = phases(d + p, h + q, w + r)[p, q, r]
//
// The sums of a phase are stored where they belong on the fine grid.

#include <algorithm>
#include <cstring>
#include <vector>

#include "pages.h"
#include "parallel.h"
#include "shape.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

using namespace dvhflax;
namespace ffi = xla::ffi;

constexpr Index kPhases = 8;

// ------------------------------------------------------ what becomes of sums

// Where the sums of one row and one vector of channels go.
struct Target {
  Index start, step;        // floats of y before voxel 0, and between voxels
  Index begin = 0, end = 0;  // voxels that there are
  Index lanes = 0;          // channels that there are, at most a vector's
  const float *scale, *shift;
};

// y = sum + added, and of that max(y * scale + shift, 0); without what is null.
// Vectors of output channels hold those of one phase, so the last of each
// phase may be part of one.
struct Output {
  float* y;
  const float *added, *scale, *shift;
  bool own;       // scale and shift are each sample's own
  Index phases;   // 8, or 1 if y is on the grid of the sums
  Index channels;  // of y
  const Shape& s;

  Index VectorsOfPhase(Index lanes) const {
    return (channels + lanes - 1) / lanes;
  }

  Target Of(Index n, Index d, Index h, Index vector, Index lanes) const {
    const Index each = VectorsOfPhase(lanes);
    const Index phase = vector / each, channel = vector % each * lanes;
    Target target = {};
    if (phase >= phases) return target;
    const Index offset = (own ? n * channels : 0) + channel;
    target.lanes = std::min(lanes, channels - channel);
    target.scale = scale == nullptr ? nullptr : scale + offset;
    target.shift = shift == nullptr ? nullptr : shift + offset;
    if (phases == 1) {
      target.start = ((n * s.to_d + d) * s.to_h + h) * s.to_w * channels;
      target.step = channels;
      target.end = s.to_w;
    } else {
      const Index p = phase / 4, q = phase / 2 % 2, r = phase % 2;
      const Index i = 2 * d - p, j = 2 * h - q;
      if (i < 0 || i >= 2 * s.d || j < 0 || j >= 2 * s.h) return target;
      target.start =
          (((n * 2 * s.d + i) * 2 * s.h + j) * 2 * s.w - r) * channels;
      target.step = 2 * channels;
      target.begin = r;
      target.end = s.w + r;
    }
    target.start += channel;
    return target;
  }
};

template <int L>
inline void Finish(const Output& output, const Target& target, Index voxel,
                   Vector<L> sum) {
  if (voxel < target.begin || voxel >= target.end) return;
  const Index at = target.start + voxel * target.step;
  const bool whole = target.lanes == L;
  auto load = [&](const float* from) {
    return whole ? Load<L>(from) : LoadFirst<L>(from, target.lanes);
  };
  if (output.added != nullptr) sum += load(output.added + at);
  if (target.scale != nullptr) {
    const Vector<L> zero = {};
    sum = sum * load(target.scale) + load(target.shift);
    sum = sum < zero ? zero : sum;  // keeps what is not a number
  }
  if (whole) {
    Store<L>(output.y + at, sum);
  } else {
    StoreFirst<L>(output.y + at, sum, target.lanes);
  }
}

// ------------------------------------------------------------------- the sums

// K^2 input rows with their zeros at either end; null where a row lies outside
// of the grid.
template <int K>
using Rows = const float* [K * K];

// T voxels from `voxel` on and V vectors of output channels. `weights` are
// packed [K^3][Ci][V * L].
template <int K, int L, int V, int T>
inline void ForwardTile(const Rows<K>& rows, Index voxel, Index in,
                        const float* weights, const Output& output,
                        const Target (&targets)[V]) {
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
      Finish<L>(output, targets[v], voxel + t, sum[t][v]);
    }
  }
}

// Voxels of a tile at most: the sums, the weights of K taps and one input value
// share the registers.
constexpr int MostVoxels(int taps, int vectors) {
  return std::clamp((kRegisters - 1) / vectors - taps, 1, 16);
}

// A tile of `count` voxels, T at most.
template <int K, int L, int V, int T>
void ForwardSome(Index count, const Rows<K>& rows, Index voxel, Index in,
                 const float* weights, const Output& output,
                 const Target (&targets)[V]) {
  if (count == T) {
    ForwardTile<K, L, V, T>(rows, voxel, in, weights, output, targets);
  } else if constexpr (T > 1) {
    ForwardSome<K, L, V, T - 1>(count, rows, voxel, in, weights, output,
                                targets);
  }
}

// As few tiles as fit, and as equal as they can be.
template <int K, int L, int V>
void ForwardRow(const Rows<K>& rows, Index width, Index in,
                const float* weights, const Output& output,
                const Target (&targets)[V]) {
  constexpr int kMost = MostVoxels(K, V);
  const Index tiles = (width + kMost - 1) / kMost;
  for (Index i = 0; i < tiles; ++i) {
    const Index begin = width * i / tiles, end = width * (i + 1) / tiles;
    ForwardSome<K, L, V, kMost>(end - begin, rows, begin, in, weights, output,
                                targets);
  }
}

// Weights of V vectors of output channels from `first` on as [K^3][Ci][V * L],
// where `packed` has zeros. Flipped: the convolution that takes gradients of y
// to x, whose weights are those of the forward one reversed and transposed.
template <int L, int V>
void Pack(const float* weights, Index taps, const Shape& s,
          const Output& output, Index first, bool flipped, float* packed) {
  const Index each = output.VectorsOfPhase(L);
  for (Index v = 0; v < V; ++v) {
    const Index phase = (first + v) / each, channel = (first + v) % each * L;
    if (phase >= output.phases) break;
    const Index lanes = std::min<Index>(L, output.channels - channel);
    const Index out = phase * output.channels + channel;
    for (Index k = 0; k < taps; ++k) {
      float* to = packed + k * s.in * V * L + v * L;
      if (flipped) {
        const float* from = weights + ((taps - 1 - k) * s.out + out) * s.in;
        for (Index o = 0; o < lanes; ++o) {
          for (Index c = 0; c < s.in; ++c) {
            to[c * V * L + o] = from[o * s.in + c];
          }
        }
      } else {
        const float* from = weights + k * s.in * s.out + out;
        for (Index c = 0; c < s.in; ++c) {
          std::copy_n(from + c * s.out, lanes, to + c * V * L);
        }
      }
    }
  }
}

template <int K, int L, int V>
void Forward(ffi::ThreadPool& pool, const Shape& s, const float* x,
             const float* weights, bool flipped, const Output& output) {
  const Index vectors = output.phases * output.VectorsOfPhase(L);
  const Index blocks = (vectors + V - 1) / V;
  constexpr Index kTaps = K * K * K;
  const Index packed_size = kTaps * s.in * V * L;
  std::vector<float> packed(blocks * packed_size);
  Parallel(pool, blocks, [&](Index b) {
    Pack<L, V>(weights, kTaps, s, output, b * V, flipped,
               &packed[b * packed_size]);
  });

  // A task goes through `deep` slices of `high` output rows and copies each
  // input row once, with its zero borders, into a ring of K slices that fits
  // the second-level cache. Fewer slices where there would be few tasks.
  const Index high = std::min<Index>(s.to_h, 8);
  const Index strips = (s.to_h + high - 1) / high;
  const Index deep = std::clamp<Index>(
      s.n * s.to_d * strips * blocks / 64, 1, std::min<Index>(s.to_d, 8));
  const Index slabs = (s.to_d + deep - 1) / deep;
  const Index border = s.padding * s.in;
  const Index padded_row = s.w * s.in + 2 * border;
  Parallel(pool, s.n * slabs * strips * blocks, [&](Index task) {
    const Index block = task % blocks;
    const Index first = task / blocks % strips * high;
    const Index first_slice = task / blocks / strips % slabs * deep;
    const Index n = task / blocks / strips / slabs;
    const Index last = std::min(s.to_h, first + high);
    const Index last_slice = std::min(s.to_d, first_slice + deep);
    static thread_local std::vector<float> buffer;
    buffer.resize(K * (high + K - 1) * padded_row);
    // Input row j above `first` of slice i, both less the padding.
    auto slot = [&](Index i, Index j) {
      return &buffer[(i % K * (high + K - 1) + j) * padded_row];
    };
    auto inside = [&](Index i, Index j) {
      const Index from_d = i - s.padding, from_h = first + j - s.padding;
      return from_d >= 0 && from_d < s.d && from_h >= 0 && from_h < s.h;
    };
    auto copy_slice = [&](Index i) {
      for (Index j = 0; j < last - first + K - 1; ++j) {
        if (!inside(i, j)) continue;
        float* to = slot(i, j);
        const Index row = (n * s.d + i - s.padding) * s.h + first + j;
        const float* from = x + (row - s.padding) * s.w * s.in;
        std::fill_n(to, border, 0.f);
        std::memcpy(to + border, from, sizeof(float) * s.w * s.in);
        std::fill_n(to + border + s.w * s.in, border, 0.f);
      }
    };
    for (Index i = 0; i < K - 1; ++i) copy_slice(first_slice + i);
    for (Index d = first_slice; d < last_slice; ++d) {
      copy_slice(d + K - 1);
      for (Index h = first; h < last; ++h) {
        Rows<K> rows;
        for (Index r = 0; r < K * K; ++r) {
          const Index i = d + r / K, j = h - first + r % K;
          rows[r] = inside(i, j) ? slot(i, j) : nullptr;
        }
        Target targets[V];
        for (Index v = 0; v < V; ++v) {
          targets[v] = output.Of(n, d, h, block * V + v, L);
        }
        ForwardRow<K, L, V>(rows, s.to_w, s.in, &packed[block * packed_size],
                            output, targets);
      }
    }
  });
}

template <int K>
void Convolve(ffi::ThreadPool& pool, const Shape& s, const float* x,
              const float* weights, bool flipped, const Output& output) {
  if constexpr (kLanes == 16) {
    // Half vectors waste nothing on eight channels.
    if (output.channels <= 8) {
      return Forward<K, 8, 1>(pool, s, x, weights, flipped, output);
    }
    if (s.out > 32 && s.w <= 4) {
      return Forward<K, 16, 4>(pool, s, x, weights, flipped, output);
    }
  }
  if (s.out <= kLanes) {
    Forward<K, kLanes, 1>(pool, s, x, weights, flipped, output);
  } else {
    Forward<K, kLanes, 2>(pool, s, x, weights, flipped, output);
  }
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

// `scale` and `shift` are [N or 1, channels], or have no elements.
bool SetActivation(const Buffer& scale, const Buffer& shift, Index samples,
                   Output* output) {
  const auto size = scale.dimensions(), other = shift.dimensions();
  if (size.size() != 2 || other.size() != 2 || size[0] != other[0] ||
      size[1] != output->channels || other[1] != output->channels) {
    return false;
  }
  if (size[0] == 0) return true;
  output->scale = scale.typed_data();
  output->shift = shift.typed_data();
  output->own = size[0] > 1;
  return size[0] == 1 || size[0] == samples;
}

void Run(ffi::ThreadPool& pool, const Shape& shape, Index taps,
         const Buffer& x, const Buffer& weights, bool flipped,
         const Output& output, Result y) {
  AdviseHugePages(y->typed_data(), y->size_bytes());
  (taps == 3 ? Convolve<3> : Convolve<2>)(pool, shape, x.typed_data(),
                                          weights.typed_data(), flipped,
                                          output);
}

ffi::Error RunConvolution(ffi::ThreadPool pool, Buffer x, Buffer weights,
                          Buffer scale, Buffer shift, Result y, bool flipped) {
  const auto k = weights.dimensions();
  const Index from = k[flipped ? 4 : 3], to = k[flipped ? 3 : 4];
  Shape shape;
  Output output = {y->typed_data(), nullptr, nullptr, nullptr, false, 1, to,
                   shape};
  if (!MakeShape(x.dimensions(), y->dimensions(), k[0], from, to, &shape) ||
      !SetActivation(scale, shift, shape.n, &output)) {
    return ffi::Error::InvalidArgument("convolution: shapes do not fit");
  }
  Run(pool, shape, k[0], x, weights, flipped, output, y);
  return ffi::Error::Success();
}

ffi::Error RunUpsampledConvolution(ffi::ThreadPool pool, Buffer x,
                                   Buffer weights, Buffer added, Buffer scale,
                                   Buffer shift, Result y) {
  const auto k = weights.dimensions(), in = x.dimensions();
  const auto out = y->dimensions(), add = added.dimensions();
  bool fit = in.size() == 5 && out.size() == 5 && add.size() == 5 &&
             k[0] == 2 && k[3] == in[4] && k[4] == kPhases * out[4] &&
             in[0] == out[0];
  for (int axis = 0; fit && axis < 5; ++axis) {
    fit = add[axis] == out[axis] &&
          (axis % 4 == 0 || out[axis] == 2 * in[axis]);
  }
  if (!fit) {
    return ffi::Error::InvalidArgument("upsampled: shapes do not fit");
  }
  const Shape shape = {in[0],     in[1],     in[2],     in[3], in[1] + 1,
                       in[2] + 1, in[3] + 1, 1,         in[4], k[4]};
  Output output = {y->typed_data(), added.typed_data(), nullptr, nullptr,
                   false,           kPhases,            out[4],  shape};
  if (!SetActivation(scale, shift, shape.n, &output)) {
    return ffi::Error::InvalidArgument("upsampled: shapes do not fit");
  }
  Run(pool, shape, 2, x, weights, false, output, y);
  return ffi::Error::Success();
}

}  // namespace

extern "C" int DvhflaxSupported() { return Supported() ? 1 : 0; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxConvolution, RunConvolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>()
                                  .Attr<bool>("flipped"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxConvolutionUpsampled,
                              RunUpsampledConvolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>());
