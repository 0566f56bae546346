// Objectives of the dose, and their slope along the fluence.
//
//   dose[n, v] = sum over m of fluence[n, m] influence[v, m]
//   values[n, t] = sum over v of share[t, v] term t of dose[n, v]
//   slope[n, m] = sum over v of gradient[n, v] influence[v, m]
//
// for N plans of M beamlets, V voxels and T objectives, whose terms are those
// of planning/objectives.py: `deviation` and `linear` say of what form each is.
//
// The influence is far larger than a cache, and read once: a strip of voxels at
// a time stays in the second-level cache from the dose to the slope. Strips are
// shared out among G groups whose sums are left apart, so that they do not
// depend on the number of threads.

#include <algorithm>
#include <limits>
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

inline float Sum(Vector<L> value) {
  float lanes[L];
  Store<L>(lanes, value);
  for (int half = L / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
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
    for (int q = 0; q < kAside; ++q) dose[p * kStrip + q] += Sum(sum[p][q]);
  }
}

// Adds to the slope of P plans along some beamlets that of a strip's voxels.
template <int P>
void AddSlope(const float* gradient, const float* influence, Index stride,
              float* slope) {
  Vector<L> sum[P][kAside];
  for (int p = 0; p < P; ++p) {
    for (int q = 0; q < kAside; ++q) {
      sum[p][q] = Load<L>(slope + p * stride + q * L);
    }
  }
  for (Index v = 0; v < kStrip; ++v) {
    Vector<L> here[P];
    for (int p = 0; p < P; ++p) here[p] = Broadcast<L>(gradient[p * kStrip + v]);
    for (int q = 0; q < kAside; ++q) {
      const Vector<L> row = Load<L>(influence + v * stride + q * L);
      for (int p = 0; p < P; ++p) sum[p][q] += here[p] * row;
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int q = 0; q < kAside; ++q) {
      Store<L>(slope + p * stride + q * L, sum[p][q]);
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
          values[t] += Sum(part * here);
          gradient += weights[t] * part;
          continue;
        }
        Vector<L> excess = here - Load<L>(threshold + at);
        if (deviation[t] == 0) excess = excess < zero ? zero : excess;
        values[t] += Sum(part * excess * excess);
        gradient += weights[t] * part * 2 * excess;
      }
      Store<L>(dose + v, gradient);
    }
  }
};

ffi::Error RunObjectives(ffi::ThreadPool pool, Floats fluence, Floats influence,
                         Counts used, Floats share, Floats threshold,
                         Floats deviation, Floats linear, Floats weights,
                         FloatsOut values, FloatsOut slope, FloatsOut highest) {
  const auto x = fluence.dimensions(), rows = influence.dimensions();
  const auto w = weights.dimensions(), sums = slope->dimensions();
  if (x.size() != 2 || rows.size() != 2 || w.size() != 2 || sums.size() != 3) {
    return ffi::Error::InvalidArgument("objectives: shapes do not fit");
  }
  const Index plans = x[0], beamlets = x[1], voxels = rows[0], terms = w[1];
  const Index groups = sums[0];
  const auto is = [](const auto& buffer, Index count) {
    return buffer.element_count() == static_cast<size_t>(count);
  };
  if (rows[1] != beamlets || beamlets % (kAside * L) != 0 ||
      voxels % kStrip != 0 || w[0] != plans || !is(used, 1) ||
      !is(share, terms * voxels) || !is(threshold, terms * voxels) ||
      !is(deviation, terms) || !is(linear, terms) ||
      !is(*values, groups * plans * terms) ||
      !is(*slope, groups * plans * beamlets) || !is(*highest, voxels) ||
      used.typed_data()[0] < 0 || used.typed_data()[0] > voxels) {
    return ffi::Error::InvalidArgument("objectives: shapes do not fit");
  }
  const Objectives objectives = {share.typed_data(),     threshold.typed_data(),
                                 deviation.typed_data(), linear.typed_data(),
                                 terms,                  voxels};
  const Index strips = (used.typed_data()[0] + kStrip - 1) / kStrip;
  std::fill_n(highest->typed_data(), voxels, 0.f);
  Parallel(pool, groups, [&](Index group) {
    float* my_slope = slope->typed_data() + group * plans * beamlets;
    float* my_values = values->typed_data() + group * plans * terms;
    std::fill_n(my_slope, plans * beamlets, 0.f);
    std::fill_n(my_values, plans * terms, 0.f);
    std::vector<float> dose(plans * kStrip);
    const Index end = (group + 1) * strips / groups;
    for (Index strip = group * strips / groups; strip < end; ++strip) {
      const float* from =
          influence.typed_data() + strip * kStrip * beamlets;
      std::fill(dose.begin(), dose.end(), 0.f);
      for (Index m = 0; m < beamlets; m += kReach) {
        const Index reach = std::min(kReach, beamlets - m);
        for (Index v = 0; v < kStrip; v += kAside) {
          ForPlans(0, plans, [&](Index n, auto count) {
            AddDose<count()>(fluence.typed_data() + n * beamlets + m,
                             from + v * beamlets + m, beamlets, reach,
                             &dose[n * kStrip + v]);
          });
        }
      }
      float* most = highest->typed_data() + strip * kStrip;
      for (Index n = 0; n < plans; ++n) {
        for (Index v = 0; v < kStrip; ++v) {
          most[v] = std::max(most[v], dose[n * kStrip + v]);
        }
        objectives.Add(strip * kStrip, weights.typed_data() + n * terms,
                       &dose[n * kStrip], my_values + n * terms);
      }
      for (Index m = 0; m < beamlets; m += kAside * L) {
        ForPlans(0, plans, [&](Index n, auto count) {
          AddSlope<count()>(&dose[n * kStrip], from + m, beamlets,
                            my_slope + n * beamlets + m);
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
                                  .Arg<Counts>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
