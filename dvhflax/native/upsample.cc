// Between a fine grid and the eight phases of its voxels on the coarse one.
//
// A convolution of K = 3 over voxels that were each repeated twice along every
// axis meets, for the fine voxel 2 i + p, only the coarse voxels i - 1 + p and
// i + p: it is one of K = 2 over the coarse grid, with eight times the output
// channels, one set for each phase p.
//
//   phases [N, D + 1, H + 1, W + 1, 8 C],  fine [N, 2 D, 2 H, 2 W, C]
//   fine(2 d + p, 2 h + q, 2 w + r) = phases(d + p, h + q, w + r)[p, q, r]

#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

using dvhflax::Index;
using dvhflax::Parallel;
namespace ffi = xla::ffi;
using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;
using Sizes = ffi::Span<const Index>;

bool Fit(Sizes phases, Sizes fine) {
  if (phases.size() != 5 || fine.size() != 5) return false;
  for (int axis = 1; axis < 4; ++axis) {
    if (fine[axis] != 2 * (phases[axis] - 1)) return false;
  }
  return phases[0] == fine[0] && phases[4] == 8 * fine[4];
}

// fine = phases + added
ffi::Error RunInterleave(ffi::ThreadPool pool, Buffer phases, Buffer added,
                         Result fine) {
  const auto from = phases.dimensions(), to = fine->dimensions();
  if (!Fit(from, to) || added.element_count() != fine->element_count()) {
    return ffi::Error::InvalidArgument("interleave: shapes do not fit");
  }
  const Index channels = to[4];
  Parallel(pool, to[0] * to[1], [&](Index task) {
    const Index n = task / to[1], d = task % to[1];
    for (Index h = 0; h < to[2]; ++h) {
      // Phases p, q, and of the coarse row (d / 2 + p, h / 2 + q).
      const Index p = d % 2, q = h % 2;
      const Index row = (n * from[1] + d / 2 + p) * from[2] + h / 2 + q;
      const float* x =
          phases.typed_data() + row * from[3] * from[4] + (2 * p + q) * 2 * channels;
      const Index start = (task * to[2] + h) * to[3] * channels;
      const float* add = added.typed_data() + start;
      float* y = fine->typed_data() + start;
      for (Index w = 0; w < to[3]; ++w, add += channels, y += channels) {
        const Index r = w % 2;
        const float* voxel = x + (w / 2 + r) * from[4] + r * channels;
        for (Index c = 0; c < channels; ++c) y[c] = voxel[c] + add[c];
      }
    }
  });
  return ffi::Error::Success();
}

// The transpose of the above: phases that no fine voxel has are 0.
ffi::Error RunDeinterleave(ffi::ThreadPool pool, Buffer fine, Result phases) {
  const auto from = fine.dimensions(), to = phases->dimensions();
  if (!Fit(to, from)) {
    return ffi::Error::InvalidArgument("deinterleave: shapes do not fit");
  }
  const Index channels = from[4];
  Parallel(pool, to[0] * to[1], [&](Index task) {
    const Index n = task / to[1], d = task % to[1];
    float* y = phases->typed_data() + task * to[2] * to[3] * to[4];
    for (Index h = 0; h < to[2]; ++h) {
      for (Index w = 0; w < to[3]; ++w) {
        for (Index phase = 0; phase < 8; ++phase, y += channels) {
          const Index p = phase / 4, q = phase / 2 % 2, r = phase % 2;
          // Voxel (2 (d - p) + p, ...) of the fine grid.
          const Index i = 2 * d - p, j = 2 * h - q, k = 2 * w - r;
          if (i < 0 || i >= from[1] || j < 0 || j >= from[2] || k < 0 ||
              k >= from[3]) {
            std::fill_n(y, channels, 0.f);
            continue;
          }
          const Index voxel = ((n * from[1] + i) * from[2] + j) * from[3] + k;
          std::memcpy(y, fine.typed_data() + voxel * channels,
                      sizeof(float) * channels);
        }
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxInterleave, RunInterleave,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxDeinterleave, RunDeinterleave,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>());
