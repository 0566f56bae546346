// The plan of one set whose DVH vector is nearest to each wish in L1:
//
//   index[w] = argmin_n sum over k |plans[n, k] - wishes[w, k]|
//
// of the valid n; the lowest on ties, -1 where no distance is finite.
//
// A tile of plans is turned, so that vectors hold element k of as many plans.
// Every plan's differences are added in the order of k, wherever it lies in the
// set. Sums never fall, so a tile is left once all of its sums are above the
// least distance that any thread has found: whatever the threads' order, the
// result is the same.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>

#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

using namespace dvhflax;
namespace ffi = xla::ffi;

// Wishes and vectors of plans that are compared at once, in registers; the
// elements between two looks at the sums.
constexpr Index kWishes = 4, kPlanVectors = 2, kBetweenLooks = 16;
constexpr Index kPlanTile = kPlanVectors * kLanes;

using Lane = Vector<kLanes>;
typedef std::int32_t LaneBits
    __attribute__((vector_size(4 * kLanes), aligned(4)));

// A distance and its plan in one number, of the order of the distances, then of
// the plans: the bits of floats from 0 on have the order of the floats.
using Nearest = std::atomic<std::uint64_t>;

inline std::uint64_t PackNearest(float distance, std::uint32_t plan) {
  std::uint32_t bits;
  std::memcpy(&bits, &distance, sizeof bits);
  return std::uint64_t{bits} << 32 | plan;
}

inline float LeastDistance(const Nearest& nearest) {
  const std::uint32_t bits = nearest.load(std::memory_order_relaxed) >> 32;
  float distance;
  std::memcpy(&distance, &bits, sizeof distance);
  return distance;
}

inline bool AnyBit(const LaneBits& lanes) {
  std::uint64_t pairs[kLanes / 2], any = 0;
  std::memcpy(pairs, &lanes, sizeof pairs);
  for (std::uint64_t pair : pairs) any |= pair;
  return any != 0;
}

// Where the compiler cannot see that it is 1. x * 1 - y is x - y, but one
// instruction of the units that multiply; those that add are the bottleneck.
const volatile float kOne = 1;

// `tile` [elements, kPlanTile] are the plans from `first` on.
void CompareTile(const float* tile, Index first, Index elements,
                 const float* const (&wishes)[kWishes],
                 Nearest* const (&nearest)[kWishes]) {
  const Lane one = Broadcast<kLanes>(kOne);
  Lane sum[kWishes][kPlanVectors] = {}, least[kWishes];
  for (Index w = 0; w < kWishes; ++w) {
    least[w] = Broadcast<kLanes>(LeastDistance(*nearest[w]));
  }
  for (Index k = 0; k < elements;) {
    for (const Index look = std::min(elements, k + kBetweenLooks); k < look;
         ++k) {
      const float* plans = tile + k * kPlanTile;
      for (Index w = 0; w < kWishes; ++w) {
        const Lane wish = Broadcast<kLanes>(wishes[w][k]);
        for (Index v = 0; v < kPlanVectors; ++v) {
          const Lane apart = Load<kLanes>(plans + v * kLanes) * one - wish;
          sum[w][v] += (Lane)((LaneBits)apart & 0x7fffffff);
        }
      }
    }
    LaneBits near = {};
    for (Index w = 0; w < kWishes; ++w) {
      for (Index v = 0; v < kPlanVectors; ++v) near |= sum[w][v] <= least[w];
    }
    if (!AnyBit(near)) return;
  }
  for (Index w = 0; w < kWishes; ++w) {
    for (Index i = 0; i < kPlanTile; ++i) {
      const float distance = sum[w][i / kLanes][i % kLanes];
      if (!(distance <= least[w][0])) continue;  // or not a number
      const std::uint64_t found = PackNearest(distance, first + i);
      std::uint64_t best = nearest[w]->load(std::memory_order_relaxed);
      while (found < best && !nearest[w]->compare_exchange_weak(
                                 best, found, std::memory_order_relaxed)) {
      }
    }
  }
}

ffi::Error RunNearest(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> wishes,
                      ffi::Buffer<ffi::F32> plans,
                      ffi::Buffer<ffi::PRED> valid,
                      ffi::ResultBuffer<ffi::S32> index) {
  const auto size = plans.dimensions(), wished = wishes.dimensions();
  if (size.size() != 2 || wished.size() != 2 || size[1] != wished[1] ||
      size[1] == 0 || size[0] > std::numeric_limits<std::int32_t>::max() ||
      valid.element_count() != static_cast<std::size_t>(size[0]) ||
      index->element_count() != static_cast<std::size_t>(wished[0])) {
    return ffi::Error::InvalidArgument("nearest: shapes do not fit");
  }
  const Index count = size[0], elements = size[1], batch = wished[0];
  const std::unique_ptr<Nearest[]> nearest(new Nearest[batch]);
  for (Index w = 0; w < batch; ++w) {
    nearest[w] = PackNearest(std::numeric_limits<float>::max(), -1);
  }
  Parallel(pool, (count + kPlanTile - 1) / kPlanTile, [&](Index task) {
    // Vectors that begin with a cache line.
    constexpr std::size_t kLine = 64;
    std::size_t room = sizeof(float) * elements * kPlanTile + kLine;
    const std::unique_ptr<char[]> memory(new char[room]);
    void* start = memory.get();
    float* tile =
        static_cast<float*>(std::align(kLine, room - kLine, start, room));
    for (Index i = 0; i < kPlanTile; ++i) {
      const Index n = task * kPlanTile + i;
      const bool usable = n < count && valid.typed_data()[n];
      const float* plan = plans.typed_data() + n * elements;
      for (Index k = 0; k < elements; ++k) {
        tile[k * kPlanTile + i] =
            usable ? plan[k] : std::numeric_limits<float>::quiet_NaN();
      }
    }
    for (Index first = 0; first < batch; first += kWishes) {
      const float* some[kWishes];
      Nearest* of_some[kWishes];
      for (Index i = 0; i < kWishes; ++i) {
        // The last one again where there are no more.
        const Index w = std::min(first + i, batch - 1);
        some[i] = wishes.typed_data() + w * elements;
        of_some[i] = &nearest[w];
      }
      CompareTile(tile, task * kPlanTile, elements, some, of_some);
    }
  });
  for (Index w = 0; w < batch; ++w) {
    index->typed_data()[w] = static_cast<std::int32_t>(nearest[w].load());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DvhflaxNearest, RunNearest,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
