// Doses of voxels from tables of blurred fluence.
//
//   dose[v, n] = sum over q, k of
//       share[v, q] weight[v, k] table[row[v] + offset[q], k, n]
//
// for the N plans, the K Gaussians of the kernel, and the four corners q of
// the table's cell that voxel v projects into.

#include <algorithm>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

using dvhflax::Index;
using dvhflax::Parallel;
namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Indices = ffi::Buffer<ffi::S32>;

ffi::Error RunLookUp(ffi::ThreadPool pool, Floats table, Indices row,
                     Floats share, Floats weight,
                     ffi::ResultBuffer<ffi::F32> dose, std::int64_t across) {
  const auto size = table.dimensions(), kernel = weight.dimensions();
  const auto out = dose->dimensions(), corner = share.dimensions();
  if (size.size() != 3 || kernel.size() != 2 || out.size() != 2 ||
      corner.size() != 2 || corner[1] != 4 || kernel[1] != size[1] ||
      out[1] != size[2] || row.element_count() != static_cast<size_t>(out[0])) {
    return ffi::Error::InvalidArgument("look-up: shapes do not fit");
  }
  const Index voxels = out[0], gaussians = size[1], plans = size[2];
  const Index offset[4] = {0, 1, across, across + 1};
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
      float* sum = dose->typed_data() + v * plans;
      std::fill_n(sum, plans, 0.f);
      for (int q = 0; q < 4; ++q) {
        const float* values =
            table.typed_data() +
            (row.typed_data()[v] + offset[q]) * gaussians * plans;
        const float part = share.typed_data()[4 * v + q];
        for (Index k = 0; k < gaussians; ++k, values += plans) {
          const float factor = part * weight.typed_data()[v * gaussians + k];
          for (Index n = 0; n < plans; ++n) sum[n] += factor * values[n];
        }
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
