// Memory of large results.

#ifndef DVHFLAX_NATIVE_PAGES_H_
#define DVHFLAX_NATIVE_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace dvhflax {

// XLA maps the memory of a program's large arrays anew at every call, one
// mapping for all, and the system clears each page when it is first written to:
// in pages of 2 MB this takes a third of the time. To be called before a large
// array is written to; asks for such pages for the whole mapping, unless the
// array has pages already. Advice: nothing is wrong if it is not taken.
inline void AdviseHugePages(const void* array, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t kLarge = std::size_t{4} << 20;
  if (bytes < kLarge) return;
  const auto start = reinterpret_cast<std::uintptr_t>(array);
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  unsigned char resident = 1;
  // The second page: the first may be another array's last.
  mincore(reinterpret_cast<void*>((start / page + 1) * page), page, &resident);
  if (resident & 1) return;
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  if (maps == nullptr) return;
  unsigned long first, last;
  while (std::fscanf(maps, "%lx-%lx%*[^\n]", &first, &last) == 2) {
    if (start < first || start >= last) continue;
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
    break;
  }
  std::fclose(maps);
#else
  static_cast<void>(array);
  static_cast<void>(bytes);
#endif
}

}  // namespace dvhflax

#endif  // DVHFLAX_NATIVE_PAGES_H_
