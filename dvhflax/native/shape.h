// The shape of a convolution.
//
//   x [N, D, H, W, Ci],  weights [K, K, K, Ci, Co],  y [N, D', H', W', Co]
//
// with P zeros before and after each axis of x, so D' = D + 2 P - K + 1: P = 1
// keeps the grid of K = 3. K = 2 serves the convolution of an upsampled x.

#ifndef DVHFLAX_NATIVE_SHAPE_H_
#define DVHFLAX_NATIVE_SHAPE_H_

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace dvhflax {

// D, H and W of x, and of y as `to_d`, `to_h` and `to_w`.
struct Shape {
  Index n, d, h, w, to_d, to_h, to_w, padding, in, out;
};

using Sizes = xla::ffi::Span<const Index>;

// That of a convolution of `taps` taps, if there is such a one.
inline bool MakeShape(Sizes in, Sizes out, Index taps, Index channels,
                      Index features, Shape* shape) {
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

}  // namespace dvhflax

#endif  // DVHFLAX_NATIVE_SHAPE_H_
