// Vectors of floats, of the width that this file is compiled for.

#ifndef DVHFLAX_NATIVE_VECTORS_H_
#define DVHFLAX_NATIVE_VECTORS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace dvhflax {

#if defined(__AVX512F__)
constexpr int kLanes = 16;  // 32 registers
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRegisters = 16;
#else
constexpr int kLanes = 4;
constexpr int kRegisters = 16;
#endif

// A vector of L floats that may lie anywhere in memory.
template <int L>
struct Lanes {
  typedef float Vector __attribute__((vector_size(4 * L), aligned(4)));
};
template <int L>
using Vector = typename Lanes<L>::Vector;

template <int L>
inline Vector<L> Load(const float* from) {
  return *reinterpret_cast<const Vector<L>*>(from);
}
template <int L>
inline void Store(float* to, Vector<L> value) {
  *reinterpret_cast<Vector<L>*>(to) = value;
}
// value in every lane. Less 0, not plus 0: that would be an addition, since it
// makes 0 of -0.
template <int L>
inline Vector<L> Broadcast(float value) {
  return value - Vector<L>{};
}
template <int L>
inline void StoreFirst(float* to, Vector<L> value, std::int64_t count) {
  float lanes[L];
  Store<L>(lanes, value);
  std::memcpy(to, lanes, sizeof(float) * std::min<std::int64_t>(count, L));
}
template <int L>
inline Vector<L> LoadFirst(const float* from, std::int64_t count) {
  float lanes[L] = {};
  std::memcpy(lanes, from, sizeof(float) * std::min<std::int64_t>(count, L));
  return Load<L>(lanes);
}

}  // namespace dvhflax

#endif  // DVHFLAX_NATIVE_VECTORS_H_
