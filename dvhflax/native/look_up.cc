// Doses of voxels from tables of blurred fluence.
//
//   dose[v, n] = sum over q, k of
//       share[v, q] weight[v, k] table[row[v] + offset[q], k, n]
//
// for the N plans, the K Gaussians of the kernel, and the four corners q of
// the table's cell that voxel v projects into. N is a multiple of kPlansAtOnce,
// so that sums stay in registers.

#include <algorithm>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

using dvhflax::Index;
using dvhflax::Parallel;
namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Indices = ffi::Buffer<ffi::S32>;

constexpr Index kCorners = 4, kPlansAtOnce = 8, kMostGaussians = 16;

ffi::Error RunLookUp(ffi::ThreadPool pool, Floats table, Indices row,
                     Floats share, Floats weight,
                     ffi::ResultBuffer<ffi::F32> dose, std::int64_t across) {
  const auto size = table.dimensions(), kernel = weight.dimensions();
  const auto out = dose->dimensions(), corner = share.dimensions();
  if (size.size() != 3 || kernel.size() != 2 || out.size() != 2 ||
      corner.size() != 2 || corner[1] != kCorners || kernel[1] != size[1] ||
      size[1] > kMostGaussians || out[1] != size[2] ||
      out[1] % kPlansAtOnce != 0 ||
      row.element_count() != static_cast<size_t>(out[0])) {
    return ffi::Error::InvalidArgument("look-up: shapes do not fit");
  }
  const Index voxels = out[0], gaussians = size[1], plans = size[2];
  const Index offset[kCorners] = {0, 1, across, across + 1};
  for (Index v = 0; v < voxels; ++v) {
    const Index first = row.typed_data()[v];
    if (first < 0 || first + across + 1 >= size[0]) {
      return ffi::Error::InvalidArgument("look-up: a voxel is off the table");
    }
  }
  constexpr Index kStrip = 256;
  Parallel(pool, (voxels + kStrip - 1) / kStrip, [&](Index task) {
    const Index end = std::min(voxels, (task + 1) * kStrip);
    for (Index v = task * kStrip; v < end; ++v) {
      float factor[kCorners][kMostGaussians];
      for (Index q = 0; q < kCorners; ++q) {
        for (Index k = 0; k < gaussians; ++k) {
          factor[q][k] = share.typed_data()[kCorners * v + q] *
                         weight.typed_data()[v * gaussians + k];
        }
      }
      for (Index n = 0; n < plans; n += kPlansAtOnce) {
        float sum[kPlansAtOnce] = {};
        for (Index q = 0; q < kCorners; ++q) {
          const float* values =
              table.typed_data() +
              (row.typed_data()[v] + offset[q]) * gaussians * plans + n;
          for (Index k = 0; k < gaussians; ++k, values += plans) {
            for (Index i = 0; i < kPlansAtOnce; ++i) {
              sum[i] += factor[q][k] * values[i];
            }
          }
        }
        std::copy_n(sum, kPlansAtOnce, dose->typed_data() + v * plans + n);
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxLookUp, RunLookUp,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Indices>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Attr<std::int64_t>("across"));
