// Doses of voxels from fluences and tables of profiles.
//
//   dose[n, v] = sum over beams b, Gaussians k and beamlets i, j of
//       weight[b, v, k] X[k, i] Z[k, j] fluence[b, i, j, n]
//
// for N plans. X and Z, the shares of Gaussian k round the voxel that lie in a
// beamlet's columns and rows, are interpolated linearly in tables whose middle
// nodes lie at 0: those of narrow Gaussians are finer than those of wide ones.
//
// Beams are coplanar, so the voxels of a column along the patient share X in
// every beam: the sum over i is made once for all of them, and what is left is
// a product of two small matrices. Far from a voxel, shares are 0 to the last
// bit, and left out.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

using namespace dvhflax;
namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;

// Plans come in multiples of the widest vector. A tile of voxels times vectors
// of plans stays in registers.
constexpr Index kPlansAtOnce = 16, kMostGaussians = 16;
constexpr int kTile = kRegisters == 32 ? 6 : 3, kMostVectors = 4;
// Voxels of a column at once, in whole tiles, and of a task.
constexpr Index kColumn = 66, kTask = 1024;

// Shares [nodes, K, beamlets] of Gaussians, and which of them are not 0.
struct Profiles {
  const float* shares;
  Index nodes, gaussians, beamlets;
  float spacing;
  std::vector<Index> begin, end;  // [nodes, K]

  Profiles(const Floats& table, float spacing)
      : shares(table.typed_data()),
        nodes(table.dimensions()[0]),
        gaussians(table.dimensions()[1]),
        beamlets(table.dimensions()[2]),
        spacing(spacing) {
    for (Index row = 0; row < nodes * gaussians; ++row) {
      const float* here = shares + row * beamlets;
      Index first = 0, last = beamlets;
      while (first < last && here[first] == 0) ++first;
      while (last > first && here[last - 1] == 0) --last;
      begin.push_back(first);
      end.push_back(last);
    }
  }

  // The node below a place in mm, and the share of the way beyond it. Outside
  // of the table its outermost values go on; there they vanish.
  Index Below(float place, float* beyond) const {
    place = std::clamp(place / spacing + float(nodes / 2), 0.f,
                       float(nodes) - 1.001f);
    const Index low = static_cast<Index>(place);
    *beyond = place - float(low);
    return low;
  }

  // The shares of Gaussian k at a place, [begin, end) of which are not 0.
  void At(Index low, float beyond, Index k, float factor, float* found,
          Index* first, Index* last) const {
    const Index row = low * gaussians + k, next = row + gaussians;
    const float* a = shares + row * beamlets;
    const float* b = shares + next * beamlets;
    for (Index i = 0; i < beamlets; ++i) {
      found[i] = factor * (a[i] * (1 - beyond) + b[i] * beyond);
    }
    const bool none = begin[row] == end[row];
    const bool none_next = begin[next] == end[next];
    *first = none ? begin[next] : none_next ? begin[row]
                                            : std::min(begin[row], begin[next]);
    *last = std::max(none ? Index{0} : end[row],
                     none_next ? Index{0} : end[next]);
    if (none && none_next) *first = *last = 0;
  }
};

// What a task needs room for.
struct Room {
  std::vector<float> across;   // [K, I] shares X of a column
  std::vector<float> along;    // [kColumn, K, J] weighted shares Z
  std::vector<float> summed;   // [K, J, N] fluence, summed over i
  std::vector<float> dose;     // [kColumn, N]
  std::vector<Index> begin, end;  // [kColumn, K] of Z, where it is not 0

  Room(Index gaussians, Index i, Index j, Index plans)
      : across(gaussians * i),
        along(kColumn * gaussians * j),
        summed(gaussians * j * plans),
        dose(kColumn * plans),
        begin(kColumn * gaussians),
        end(kColumn * gaussians) {}
};

// Calls `add` with the first lane and the number, known to the compiler, of the
// vectors of plans whose sums are in registers.
template <int V = kMostVectors, class Add>
void ForVectors(Index first, Index plans, Add add) {
  for (; first + V * kLanes <= plans; first += V * kLanes) {
    add(first, std::integral_constant<int, V>());
  }
  if constexpr (V > 1) ForVectors<V - 1>(first, plans, add);
}

// One beam's dose of one kind of Gaussians to a column of voxels.
class Beam {
 public:
  Beam(const float* fluence, const Profiles& x, const Profiles& z, Index plans)
      : fluence_(fluence), x_(x), z_(z), plans_(plans) {}

  // weight: [count, stride], of which those of this kind come first.
  void Add(Index count, const float* x, const float* z, const float* weight,
           Index stride, Room& room) const {
    if (!Across(*x, room)) return;
    const Index kinds = z_.gaussians, rows = z_.beamlets;
    const Index whole = (count + kTile - 1) / kTile * kTile;
    for (Index v = 0; v < whole; ++v) {
      float beyond = 0;
      const Index low = v < count ? z_.Below(z[v], &beyond) : 0;
      for (Index k = 0; k < kinds; ++k) {
        const Index at = v * kinds + k;
        if (v < count) {
          z_.At(low, beyond, k, weight[v * stride + k], &room.along[at * rows],
                &room.begin[at], &room.end[at]);
        } else {
          std::fill_n(&room.along[at * rows], rows, 0.f);
          room.begin[at] = room.end[at] = 0;
        }
      }
    }
    for (Index v = 0; v < whole; v += kTile) {
      ForVectors(0, plans_, [&](Index n, auto vectors) {
        AddTile<vectors()>(v, n, room);
      });
    }
  }

 private:
  // Sums the fluence over the beamlets across; whether there is any.
  bool Across(float place, Room& room) const {
    const Index kinds = x_.gaussians, columns = x_.beamlets;
    float beyond;
    const Index low = x_.Below(place, &beyond);
    Index first = columns, last = 0;
    for (Index k = 0; k < kinds; ++k) {
      Index begin, end;
      x_.At(low, beyond, k, 1, &room.across[k * columns], &begin, &end);
      if (begin == end) continue;
      first = std::min(first, begin);
      last = std::max(last, end);
    }
    if (first >= last) return false;
    const Index rows = z_.beamlets, each = rows * plans_;
    for (Index at = 0; at < each; at += kLanes) {
      const float* from = fluence_ + at;
      for (Index k = 0; k < kinds; k += 4) {
        const int some = int(std::min<Index>(4, kinds - k));
        Vector<kLanes> sum[4] = {};
        for (Index i = first; i < last; ++i) {
          const auto here = Load<kLanes>(from + i * each);
          for (int q = 0; q < 4; ++q) {
            if (q < some) sum[q] += room.across[(k + q) * columns + i] * here;
          }
        }
        for (int q = 0; q < some; ++q) {
          Store<kLanes>(&room.summed[(k + q) * each + at], sum[q]);
        }
      }
    }
    return true;
  }

  template <int V>
  void AddTile(Index voxel, Index plan, Room& room) const {
    Vector<kLanes> sum[kTile][V];
    float* dose = &room.dose[voxel * plans_ + plan];
    for (int t = 0; t < kTile; ++t) {
      for (int v = 0; v < V; ++v) {
        sum[t][v] = Load<kLanes>(dose + t * plans_ + v * kLanes);
      }
    }
    const Index kinds = z_.gaussians, rows = z_.beamlets, step = kinds * rows;
    for (Index k = 0; k < kinds; ++k) {
      Index first = rows, last = 0;
      for (int t = 0; t < kTile; ++t) {
        const Index at = (voxel + t) * kinds + k;
        if (room.begin[at] == room.end[at]) continue;
        first = std::min(first, room.begin[at]);
        last = std::max(last, room.end[at]);
      }
      const float* along = &room.along[(voxel * kinds + k) * rows];
      const float* summed = &room.summed[k * rows * plans_ + plan];
      for (Index j = first; j < last; ++j) {
        Vector<kLanes> share[kTile];
        for (int t = 0; t < kTile; ++t) {
          share[t] = Broadcast<kLanes>(along[t * step + j]);
        }
        for (int v = 0; v < V; ++v) {
          const auto here = Load<kLanes>(summed + j * plans_ + v * kLanes);
          for (int t = 0; t < kTile; ++t) sum[t][v] += share[t] * here;
        }
      }
    }
    for (int t = 0; t < kTile; ++t) {
      for (int v = 0; v < V; ++v) {
        Store<kLanes>(dose + t * plans_ + v * kLanes, sum[t][v]);
      }
    }
  }

  const float* fluence_;  // [I, J, N]
  const Profiles &x_, &z_;
  const Index plans_;
};

ffi::Error RunLookUp(ffi::ThreadPool pool, Floats fluence, Floats x, Floats z,
                     Floats weight, Floats narrow_x, Floats narrow_z,
                     Floats wide_x, Floats wide_z,
                     ffi::ResultBuffer<ffi::F32> dose, float narrow_mm,
                     float wide_mm) {
  const auto maps = fluence.dimensions(), kernel = weight.dimensions();
  const auto out = dose->dimensions();
  const auto invalid = [] {
    return ffi::Error::InvalidArgument("look-up: shapes do not fit");
  };
  if (maps.size() != 4 || kernel.size() != 3 || out.size() != 2) {
    return invalid();
  }
  const Index beams = maps[0], plans = maps[3], voxels = out[1];
  const Index gaussians = kernel[2];
  const size_t places = static_cast<size_t>(beams * voxels);
  if (out[0] != plans || plans % kPlansAtOnce != 0 || kernel[0] != beams ||
      kernel[1] != voxels || gaussians > kMostGaussians ||
      x.element_count() != places || z.element_count() != places) {
    return invalid();
  }
  Index kinds[2] = {};
  for (const auto* table : {&narrow_x, &narrow_z, &wide_x, &wide_z}) {
    const auto size = table->dimensions();
    const bool across = table == &narrow_x || table == &wide_x;
    if (size.size() != 3 || size[0] < 2 || size[2] != maps[across ? 1 : 2]) {
      return invalid();
    }
    kinds[across] += size[1];
  }
  if (kinds[0] != gaussians || kinds[1] != gaussians ||
      narrow_x.dimensions()[1] != narrow_z.dimensions()[1]) {
    return invalid();
  }
  const Profiles narrow[2] = {{narrow_x, narrow_mm}, {narrow_z, narrow_mm}};
  const Profiles wide[2] = {{wide_x, wide_mm}, {wide_z, wide_mm}};
  Parallel(pool, (voxels + kTask - 1) / kTask, [&](Index task) {
    Room room(gaussians, maps[1], maps[2], plans);
    const Index end = std::min(voxels, (task + 1) * kTask);
    for (Index v = task * kTask, count; v < end; v += count) {
      const auto same = [&](Index other) {
        for (Index b = 0; b < beams; ++b) {
          const float* places = x.typed_data() + b * voxels;
          if (places[other] != places[v]) return false;
        }
        return true;
      };
      const Index most = std::min(kColumn, end - v);
      for (count = 1; count < most && same(v + count);) ++count;
      std::fill(room.dose.begin(), room.dose.end(), 0.f);
      for (Index b = 0; b < beams; ++b) {
        const float* map =
            fluence.typed_data() + b * maps[1] * maps[2] * plans;
        const Index at = b * voxels + v;
        const float* weights = weight.typed_data() + at * gaussians;
        for (const Profiles* kind : {narrow, wide}) {
          Beam(map, kind[0], kind[1], plans)
              .Add(count, x.typed_data() + at, z.typed_data() + at, weights,
                   gaussians, room);
          weights += kind[0].gaussians;
        }
      }
      for (Index n = 0; n < plans; ++n) {
        for (Index i = 0; i < count; ++i) {
          dose->typed_data()[n * voxels + v + i] = room.dose[i * plans + n];
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
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<float>("narrow_mm")
                                  .Attr<float>("wide_mm"));
