// Objectives of the dose, and their slope along the fluence.
//
//   dose[n, v] = sum over m of fluence[n, m] influence[v, m]
//   values[n, t] = sum over v of share[t, v] term t of dose[n, v]
//   slope[n, m] = sum over v of gradient[n, v] influence[v, m]
//               + 2 sum over b of fluence[n, b] gram[b, m]
//
// for N plans of M beamlets, V voxels and T objectives, whose terms are those
// of planning/objectives.py: `deviation` and `linear` say of what form each is.
// The gram matrix may have no rows. `used` are the voxels and the beamlets
// before the padding.
//
// The influence is far larger than a cache, and read once: a strip of voxels at
// a time stays in the second-level cache from the dose to the slope. Strips are
// shared out among G groups whose sums are left apart, so that they do not
// depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

using namespace dvhflax;
namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Counts = ffi::Buffer<ffi::S32>;
using FloatsOut = ffi::ResultBuffer<ffi::F32>;

constexpr int L = kLanes;
// Voxels of a strip; plans, and voxels or vectors of beamlets, whose sums are
// in registers; beamlets whose fluences and influences stay in the first-level
// cache.
constexpr Index kStrip = 64, kReach = 1024;
constexpr int kPlans = kRegisters == 32 ? 5 : 3, kAside = 4;
constexpr Index kStep = kAside * L;
// So many plans make up for copying a strip's part of the influence to where
// its rows are next to each other, so that they fit the first-level cache.
constexpr Index kManyPlans = 32;

// The sum of the lanes, by halves.
template <int W>
inline float Sum(Vector<W> value) {
  if constexpr (W == 1) {
    return value[0];
  } else {
    Vector<W / 2> half[2];
    std::memcpy(half, &value, sizeof(value));
    return Sum<W / 2>(half[0] + half[1]);
  }
}

// Adds to the dose of P plans in some voxels what some beamlets give.
template <int P>
void AddDose(const float* fluence, const float* influence, Index stride,
             Index beamlets, float* dose) {
  Vector<L> sum[P][kAside] = {};
  for (Index m = 0; m < beamlets; m += L) {
    Vector<L> here[P];
    for (int p = 0; p < P; ++p) here[p] = Load<L>(fluence + p * stride + m);
    for (int q = 0; q < kAside; ++q) {
      const Vector<L> row = Load<L>(influence + q * stride + m);
      for (int p = 0; p < P; ++p) sum[p][q] += here[p] * row;
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int q = 0; q < kAside; ++q) dose[p * kStrip + q] += Sum<L>(sum[p][q]);
  }
}

// Adds to the slope of P plans along some beamlets that of a strip's voxels;
// the bits of `voxels` are those that count in any of the plans. From one row
// to the next are `stride` floats, from one plan's slope to the next `plan`.
template <int P>
void AddSlope(const float* gradient, std::uint64_t voxels,
              const float* influence, Index stride, float* slope,
              Index plan) {
  Vector<L> sum[P][kAside];
  for (int p = 0; p < P; ++p) {
    for (int q = 0; q < kAside; ++q) {
      sum[p][q] = Load<L>(slope + p * plan + q * L);
    }
  }
  for (; voxels != 0; voxels &= voxels - 1) {
    const Index v = __builtin_ctzll(voxels);
    Vector<L> here[P];
    for (int p = 0; p < P; ++p) {
      here[p] = Broadcast<L>(gradient[p * kStrip + v]);
    }
    for (int q = 0; q < kAside; ++q) {
      const Vector<L> row = Load<L>(influence + v * stride + q * L);
      for (int p = 0; p < P; ++p) sum[p][q] += here[p] * row;
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int q = 0; q < kAside; ++q) {
      Store<L>(slope + p * plan + q * L, sum[p][q]);
    }
  }
}

// Calls `add` with the first plan and the number, known to the compiler, of the
// plans that fit into registers, until all plans had their turn.
template <int P = kPlans, class Add>
void ForPlans(Index first, Index plans, Add add) {
  for (; first + P <= plans; first += P) {
    add(first, std::integral_constant<int, P>());
  }
  if constexpr (P > 1) ForPlans<P - 1>(first, plans, add);
}

struct Objectives {
  const float *share, *threshold;  // [T, V]
  const float *deviation, *linear;  // [T]
  Index count, voxels;

  // Adds one plan's values in a strip from `first` on, and puts the gradient
  // in the place of the dose.
  void Add(Index first, const float* weights, float* dose,
           float* values) const {
    for (Index v = 0; v < kStrip; v += L) {
      const Vector<L> here = Load<L>(dose + v), zero = {};
      Vector<L> gradient = {};
      for (Index t = 0; t < count; ++t) {
        const Index at = t * voxels + first + v;
        const Vector<L> part = Load<L>(share + at);
        if (linear[t] != 0) {
          values[t] += Sum<L>(part * here);
          gradient += weights[t] * part;
          continue;
        }
        Vector<L> excess = here - Load<L>(threshold + at);
        if (deviation[t] == 0) excess = excess < zero ? zero : excess;
        values[t] += Sum<L>(part * excess * excess);
        gradient += weights[t] * part * 2 * excess;
      }
      Store<L>(dose + v, gradient);
    }
  }
};

ffi::Error RunObjectives(ffi::ThreadPool pool, Floats fluence, Floats influence,
                         Floats gram, Counts used, Floats share,
                         Floats threshold, Floats deviation, Floats linear,
                         Floats weights,
                         FloatsOut values, FloatsOut slope, FloatsOut highest) {
  const auto x = fluence.dimensions(), rows = influence.dimensions();
  const auto w = weights.dimensions(), sums = slope->dimensions();
  const auto pairs = gram.dimensions();
  if (x.size() != 2 || rows.size() != 2 || w.size() != 2 || sums.size() != 3 ||
      pairs.size() != 2) {
    return ffi::Error::InvalidArgument("objectives: shapes do not fit");
  }
  const Index plans = x[0], beamlets = x[1], voxels = rows[0], terms = w[1];
  const Index groups = sums[0];
  const size_t of_voxels = static_cast<size_t>(terms * voxels);
  const size_t of_terms = static_cast<size_t>(terms);
  const size_t of_groups = static_cast<size_t>(groups * plans);
  if (rows[1] != beamlets || beamlets % kStep != 0 ||
      beamlets % kStrip != 0 || voxels % kStrip != 0 ||
      pairs[1] != beamlets || (pairs[0] != 0 && pairs[0] != beamlets) ||
      w[0] != plans || used.element_count() != 2 ||
      share.element_count() != of_voxels ||
      threshold.element_count() != of_voxels ||
      deviation.element_count() != of_terms ||
      linear.element_count() != of_terms ||
      values->element_count() != of_groups * of_terms ||
      slope->element_count() != of_groups * static_cast<size_t>(beamlets) ||
      highest->element_count() != static_cast<size_t>(voxels) ||
      used.typed_data()[0] < 0 || used.typed_data()[0] > voxels ||
      used.typed_data()[1] < 0 || used.typed_data()[1] > beamlets) {
    return ffi::Error::InvalidArgument("objectives: shapes do not fit");
  }
  const Objectives objectives = {share.typed_data(),     threshold.typed_data(),
                                 deviation.typed_data(), linear.typed_data(),
                                 terms,                  voxels};
  const auto upwards = [](Index count, Index of) {
    return (count + of - 1) / of;
  };
  // Beamlets in use, and strips of voxels, then of the gram matrix.
  const Index open = upwards(used.typed_data()[1], kStep) * kStep;
  const Index dose_strips = upwards(used.typed_data()[0], kStrip);
  const Index strips = dose_strips + (pairs[0] ? upwards(open, kStrip) : 0);
  std::fill_n(highest->typed_data(), voxels, 0.f);
  Parallel(pool, groups, [&](Index group) {
    float* my_slope = slope->typed_data() + group * plans * beamlets;
    float* my_values = values->typed_data() + group * plans * terms;
    std::fill_n(my_slope, plans * beamlets, 0.f);
    std::fill_n(my_values, plans * terms, 0.f);
    std::vector<float> gradient(plans * kStrip);
    std::vector<std::uint64_t> counts(plans);
    alignas(64) float packed[kStrip * kStep];
    const Index end = (group + 1) * strips / groups;
    for (Index strip = group * strips / groups; strip < end; ++strip) {
      const bool dose = strip < dose_strips;
      const Index first = (strip - (dose ? 0 : dose_strips)) * kStrip;
      const float* from =
          (dose ? influence : gram).typed_data() + first * beamlets;
      std::fill(gradient.begin(), gradient.end(), 0.f);
      for (Index m = 0; dose && m < open; m += kReach) {
        const Index reach = std::min(kReach, open - m);
        ForPlans(0, plans, [&](Index n, auto count) {
          for (Index v = 0; v < kStrip; v += kAside) {
            AddDose<count()>(fluence.typed_data() + n * beamlets + m,
                             from + v * beamlets + m, beamlets, reach,
                             &gradient[n * kStrip + v]);
          }
        });
      }
      float* most = highest->typed_data() + first;
      for (Index n = 0; n < plans; ++n) {
        float* here = &gradient[n * kStrip];
        for (Index v = 0; v < kStrip; ++v) {
          if (dose) {
            most[v] = std::max(most[v], here[v]);
          } else {
            here[v] = 2 * fluence.typed_data()[n * beamlets + first + v];
          }
        }
        if (dose) {
          objectives.Add(first, weights.typed_data() + n * terms, here,
                         my_values + n * terms);
        }
        counts[n] = 0;
        for (Index v = 0; v < kStrip; ++v) {
          counts[n] |= std::uint64_t{here[v] != 0} << v;
        }
      }
      for (Index m = 0; m < open; m += kStep) {
        const float* part = from + m;
        Index stride = beamlets;
        if (plans >= kManyPlans) {
          for (Index v = 0; v < kStrip; ++v) {
            std::copy_n(part + v * stride, kStep, packed + v * kStep);
          }
          part = packed;
          stride = kStep;
        }
        ForPlans(0, plans, [&](Index n, auto count) {
          std::uint64_t any = 0;
          for (int p = 0; p < count(); ++p) any |= counts[n + p];
          AddSlope<count()>(&gradient[n * kStrip], any, part, stride,
                            my_slope + n * beamlets + m, beamlets);
        });
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxObjectives, RunObjectives,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Counts>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
