// Memory of large results.

#ifndef DVHFLAX_NATIVE_PAGES_H_
#define DVHFLAX_NATIVE_PAGES_H_

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dvhflax {

// XLA maps large buffers anew at every call, and the system clears them page by
// page as they are written to: in pages of 2 MB this takes a third of the time.
inline void AdviseHugePages(void* buffer, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kPage = std::uintptr_t{1} << 21;
  const auto start = reinterpret_cast<std::uintptr_t>(buffer);
  const std::uintptr_t first = (start + kPage - 1) & ~(kPage - 1);
  const std::uintptr_t last = (start + bytes) & ~(kPage - 1);
  // Advice: nothing is wrong if it is not taken.
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#else
  static_cast<void>(buffer);
  static_cast<void>(bytes);
#endif
}

}  // namespace dvhflax

#endif  // DVHFLAX_NATIVE_PAGES_H_
