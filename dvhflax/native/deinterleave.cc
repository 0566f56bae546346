// From a fine grid to the eight phases of its voxels on the coarse one, see
// convolution.cc: the gradient to the sums that were stored on the fine grid.
//
//   fine [N, 2 D, 2 H, 2 W, C] -> phases [N, D + 1, H + 1, W + 1, 8 C]

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

// Phases that no fine voxel has are 0.
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxDeinterleave, RunDeinterleave,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>());
