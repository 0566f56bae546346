// Every compiled kernel on many shapes, against the sums they stand for; to be
// built with a sanitizer. Prints what is wrong and returns 1.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../../dvhflax/native/convolution.cc"
#include "../../dvhflax/native/deinterleave.cc"
#include "../../dvhflax/native/look_up.cc"
#include "../../dvhflax/native/nearest.cc"
#include "../../dvhflax/native/objectives.cc"
#include "../../dvhflax/native/weight_gradient.cc"

namespace {

int failures = 0;

// Runs on threads of its own, and waits for all.
template <class Call>
void Run(const char* name, Call call) {
  std::vector<std::thread> threads;
  const ffi::Error error = call(ffi::ThreadPool(threads));
  for (std::thread& thread : threads) thread.join();
  if (!error.message().empty()) {
    std::printf("%s: %s\n", name, error.message().c_str());
    ++failures;
  }
}

void Expect(const char* name, const Shape& s, double sum, float value) {
  if (std::abs(sum - value) <= 1e-4 * (1 + std::abs(sum))) return;
  std::printf("%s %ldx%ldx%ld, %ld-%ld: %g is not %g\n", name, long(s.d),
              long(s.h), long(s.w), long(s.in), long(s.out), value, sum);
  ++failures;
}

void CheckConvolution(Index taps, const Shape& s) {
  ffi::Buffer<ffi::F32> x({s.n, s.d, s.h, s.w, s.in});
  ffi::Buffer<ffi::F32> weights({taps, taps, taps, s.in, s.out});
  ffi::Buffer<ffi::F32> y({s.n, s.to_d, s.to_h, s.to_w, s.out});
  ffi::Buffer<ffi::F32> back({s.n, s.d, s.h, s.w, s.in});
  ffi::Buffer<ffi::F32> gradient({taps, taps, taps, s.in, s.out});
  ffi::Buffer<ffi::F32> none({0, s.out}), none_back({0, s.in});
  Run("forward", [&](ffi::ThreadPool pool) {
    return RunConvolution(pool, x, weights, none, none, Result(y), false);
  });
  Run("backward", [&](ffi::ThreadPool pool) {
    return RunConvolution(pool, y, weights, none_back, none_back, Result(back),
                          true);
  });
  Run("weight gradient", [&](ffi::ThreadPool pool) {
    return RunWeightGradient(pool, x, y, Result(gradient));
  });
  // The corners of y, and the first and the last weight.
  auto at = [&](ffi::Buffer<ffi::F32>& b, Index n, Index d, Index h, Index w,
                Index c) -> float& {
    const auto size = b.dimensions();
    return b.typed_data()[(((n * size[1] + d) * size[2] + h) * size[3] + w) *
                              size[4] + c];
  };
  auto inside = [&](Index i, Index size) { return i >= 0 && i < size; };
  for (Index corner = 0; corner < 8; ++corner) {
    const Index d = corner & 1 ? s.to_d - 1 : 0, n = s.n - 1;
    const Index h = corner & 2 ? s.to_h - 1 : 0, o = s.out - 1;
    const Index w = corner & 4 ? s.to_w - 1 : 0;
    double sum = 0;
    for (Index k = 0; k < taps * taps * taps; ++k) {
      const Index i = d + k / taps / taps - s.padding;
      const Index j = h + k / taps % taps - s.padding;
      const Index l = w + k % taps - s.padding;
      if (!inside(i, s.d) || !inside(j, s.h) || !inside(l, s.w)) continue;
      for (Index c = 0; c < s.in; ++c) {
        sum += double(at(x, n, i, j, l, c)) *
               weights.typed_data()[(k * s.in + c) * s.out + o];
      }
    }
    Expect("forward", s, sum, at(y, n, d, h, w, o));
  }
  for (Index last : {Index{0}, Index{1}}) {
    const Index tap = last ? taps - 1 : 0;
    const Index c = last ? s.in - 1 : 0, o = last ? s.out - 1 : 0;
    double sum = 0;
    for (Index n = 0; n < s.n; ++n) {
      for (Index d = 0; d < s.to_d; ++d) {
        for (Index h = 0; h < s.to_h; ++h) {
          for (Index w = 0; w < s.to_w; ++w) {
            const Index i = d + tap - s.padding, j = h + tap - s.padding;
            const Index l = w + tap - s.padding;
            if (!inside(i, s.d) || !inside(j, s.h) || !inside(l, s.w)) continue;
            sum += double(at(x, n, i, j, l, c)) * at(y, n, d, h, w, o);
          }
        }
      }
    }
    const Index k = (tap * taps + tap) * taps + tap;
    Expect("weight gradient", s, sum,
           gradient.typed_data()[(k * s.in + c) * s.out + o]);
  }
}

void CheckUpsampling(Index n, Index d, Index h, Index w, Index in,
                     Index channels) {
  ffi::Buffer<ffi::F32> x({n, d, h, w, in});
  ffi::Buffer<ffi::F32> weights({2, 2, 2, in, 8 * channels});
  ffi::Buffer<ffi::F32> phases({n, d + 1, h + 1, w + 1, 8 * channels});
  ffi::Buffer<ffi::F32> added({n, 2 * d, 2 * h, 2 * w, channels});
  ffi::Buffer<ffi::F32> fine({n, 2 * d, 2 * h, 2 * w, channels});
  ffi::Buffer<ffi::F32> scale({n, channels}), shift({n, channels});
  Run("upsampled", [&](ffi::ThreadPool pool) {
    return RunUpsampledConvolution(pool, x, weights, added, scale, shift,
                                   Result(fine));
  });
  // The same in two steps: the sums of all phases, and one of each corner.
  ffi::Buffer<ffi::F32> none({0, 8 * channels});
  Run("phases", [&](ffi::ThreadPool pool) {
    return RunConvolution(pool, x, weights, none, none, Result(phases), false);
  });
  const Shape s = {n, d, h, w, 2 * d, 2 * h, 2 * w, 1, in, channels};
  for (Index corner = 0; corner < 8; ++corner) {
    const Index p = corner / 4, q = corner / 2 % 2, r = corner % 2;
    const Index i = p * (2 * d - 1), j = q * (2 * h - 1), k = r * (2 * w - 1);
    const Index voxel = (((n - 1) * 2 * d + i) * 2 * h + j) * 2 * w + k;
    const Index coarse =
        (((n - 1) * (d + 1) + p * d) * (h + 1) + q * h) * (w + 1) + r * w;
    const Index c = channels - 1, sample = (n - 1) * channels + c;
    const double sum =
        phases.typed_data()[(coarse * 8 + corner) * channels + c] +
        added.typed_data()[voxel * channels + c];
    Expect("upsampled", s,
           std::max(0., sum * scale.typed_data()[sample] +
                            shift.typed_data()[sample]),
           fine.typed_data()[voxel * channels + c]);
  }
  Run("deinterleave", [&](ffi::ThreadPool pool) {
    return RunDeinterleave(pool, fine, Result(phases));
  });
}

// Columns of 7 voxels each, some beyond the tables.
void CheckLookUp(Index voxels, Index plans) {
  constexpr Index kBeams = 2, kGaussians = 3, kColumns = 5, kRows = 4;
  ffi::Buffer<ffi::F32> fluence({kBeams, kColumns, kRows, plans});
  ffi::Buffer<ffi::F32> x({kBeams, voxels}), z({kBeams, voxels});
  ffi::Buffer<ffi::F32> weight({kBeams, voxels, kGaussians});
  ffi::Buffer<ffi::F32> narrow_x({9, 2, kColumns}), narrow_z({11, 2, kRows});
  ffi::Buffer<ffi::F32> wide_x({5, 1, kColumns}), wide_z({3, 1, kRows});
  ffi::Buffer<ffi::F32> dose({plans, voxels});
  for (Index v = 0; v < kBeams * voxels; ++v) {
    x.typed_data()[v] = 0.6f * float(v % voxels / 7 % 9) - 2.5f;
    z.typed_data()[v] = 0.9f * float(v % 7) - 2.7f;
  }
  std::fill_n(narrow_x.typed_data(), 2 * kColumns, 0.f);
  Run("look-up", [&](ffi::ThreadPool pool) {
    return RunLookUp(pool, fluence, x, z, weight, narrow_x, narrow_z, wide_x,
                     wide_z, ffi::ResultBuffer<ffi::F32>(dose), 0.5f, 2.f);
  });
}

void CheckNearest(Index batch, Index count, Index elements) {
  ffi::Buffer<ffi::F32> wishes({batch, elements}), plans({count, elements});
  ffi::Buffer<ffi::PRED> valid({count});
  ffi::Buffer<ffi::S32> index({batch});
  Run("nearest", [&](ffi::ThreadPool pool) {
    return RunNearest(pool, wishes, plans, valid,
                      ffi::ResultBuffer<ffi::S32>(index));
  });
  for (Index w = 0; w < batch; ++w) {
    Index best = -1;
    double least = INFINITY;
    for (Index n = 0; n < count; ++n) {
      double distance = 0;
      for (Index k = 0; k < elements; ++k) {
        distance += std::abs(plans.typed_data()[n * elements + k] -
                             wishes.typed_data()[w * elements + k]);
      }
      if (!valid.typed_data()[n] || distance >= least) continue;
      least = distance;
      best = n;
    }
    if (index.typed_data()[w] == best) continue;
    std::printf("nearest %ldx%ldx%ld: %d is not %ld\n", long(batch),
                long(count), long(elements), index.typed_data()[w], long(best));
    ++failures;
  }
}

// The doses' mean as the one objective, so that slopes are sums of influence.
void CheckObjectives(Index plans, Index voxels, Index beamlets) {
  const Index all_voxels = (voxels + 63) / 64 * 64, groups = 3;
  const Index all_beamlets = (beamlets + 63) / 64 * 64;
  ffi::Buffer<ffi::F32> fluence({plans, all_beamlets});
  ffi::Buffer<ffi::F32> influence({all_voxels, all_beamlets});
  ffi::Buffer<ffi::F32> gram({all_beamlets, all_beamlets});
  ffi::Buffer<ffi::S32> used({2});
  ffi::Buffer<ffi::F32> share({1, all_voxels}), threshold({1, all_voxels});
  ffi::Buffer<ffi::F32> deviation({1}), linear({1}), weights({plans, 1});
  ffi::Buffer<ffi::F32> values({groups, plans, 1}), highest({all_voxels});
  ffi::Buffer<ffi::F32> slope({groups, plans, all_beamlets});
  used.typed_data()[0] = static_cast<std::int32_t>(voxels);
  used.typed_data()[1] = static_cast<std::int32_t>(beamlets);
  linear.typed_data()[0] = 1;
  std::fill_n(share.typed_data() + voxels, all_voxels - voxels, 0.f);
  for (Index n = 0; n < plans; ++n) {
    weights.typed_data()[n] = 1;
    for (Index m = beamlets; m < all_beamlets; ++m) {
      fluence.typed_data()[n * all_beamlets + m] = 0;
    }
  }
  Run("objectives", [&](ffi::ThreadPool pool) {
    return RunObjectives(pool, fluence, influence, gram, used, share, threshold,
                         deviation, linear, weights,
                         ffi::ResultBuffer<ffi::F32>(values),
                         ffi::ResultBuffer<ffi::F32>(slope),
                         ffi::ResultBuffer<ffi::F32>(highest));
  });
  const Index n = plans - 1, m = beamlets - 1;
  double sum = 0, found = 0;
  for (Index v = 0; v < voxels; ++v) {
    sum += double(share.typed_data()[v]) *
           influence.typed_data()[v * all_beamlets + m];
  }
  for (Index b = 0; b < beamlets; ++b) {
    sum += 2. * fluence.typed_data()[n * all_beamlets + b] *
           gram.typed_data()[b * all_beamlets + m];
  }
  for (Index g = 0; g < groups; ++g) {
    found += slope.typed_data()[(g * plans + n) * all_beamlets + m];
  }
  if (std::abs(sum - found) > 1e-4 * (1 + std::abs(sum))) {
    std::printf("objectives: %g is not %g\n", found, sum);
    ++failures;
  }
}

}  // namespace

int main() {
  if (!Supported()) return 0;
  for (Index out : {1, 7, 8, 9, 16, 20, 33, 70}) {
    for (Index in : {1, 3, 8, 13}) {
      CheckConvolution(3, {2, 5, 4, 19, 5, 4, 19, 1, in, out});
      CheckConvolution(2, {1, 3, 4, 5, 4, 5, 6, 1, in, out});
      CheckConvolution(2, {1, 4, 5, 6, 3, 4, 5, 0, in, out});
    }
  }
  CheckConvolution(3, {1, 1, 1, 1, 1, 1, 1, 1, 128, 128});
  CheckConvolution(3, {3, 16, 16, 16, 16, 16, 16, 1, 8, 16});
  CheckConvolution(3, {1, 70, 17, 3, 70, 17, 3, 1, 2, 4});
  for (Index channels : {3, 8, 16, 20}) {
    CheckUpsampling(2, 3, 4, 5, 6, channels);
    CheckUpsampling(1, 9, 2, 1, 1, channels);
  }
  // Memory without pages yet, then with some.
  const std::size_t large = std::size_t{16} << 20;
  const std::unique_ptr<char[]> fresh(new char[large]);
  AdviseHugePages(fresh.get(), large);
  std::memset(fresh.get(), 1, large);
  AdviseHugePages(fresh.get(), large);
  CheckLookUp(1000, 16);
  CheckLookUp(3, 48);
  for (Index batch : {1, 4, 7}) {
    CheckNearest(batch, 1, 1);
    CheckNearest(batch, 33, 16);
    CheckNearest(batch, 500, 37);
  }
  CheckObjectives(1, 100, 30);
  CheckObjectives(12, 64, 128);
  CheckObjectives(40, 130, 65);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
