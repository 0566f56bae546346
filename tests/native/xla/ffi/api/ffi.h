// As much of XLA's FFI as the kernels use, on plain threads: what a sanitizer
// has not instrumented, XLA itself, would hide errors or feign them.

#ifndef DVHFLAX_TESTS_NATIVE_FFI_H_
#define DVHFLAX_TESTS_NATIVE_FFI_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace xla::ffi {

enum DataType { F32, S32, PRED };

template <DataType>
struct TypeOf;
template <>
struct TypeOf<F32> {
  using type = float;
};
template <>
struct TypeOf<S32> {
  using type = std::int32_t;
};
// Not bool: vectors of those have no data().
template <>
struct TypeOf<PRED> {
  using type = unsigned char;
};

template <class T>
class Span {
 public:
  explicit Span(const std::vector<std::int64_t>& values) : values_(&values) {}
  std::size_t size() const { return values_->size(); }
  T operator[](std::size_t i) const { return (*values_)[i]; }

 private:
  const std::vector<std::int64_t>* values_;
};

// An array of its own, filled with small numbers.
template <DataType D>
class Buffer {
 public:
  using T = typename TypeOf<D>::type;
  explicit Buffer(std::vector<std::int64_t> dimensions)
      : dimensions_(std::move(dimensions)) {
    std::int64_t count = 1;
    for (std::int64_t n : dimensions_) count *= n;
    values_.resize(count);
    unsigned state = 1;
    for (T& value : values_) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<T>(state >> 28);
    }
  }
  Span<const std::int64_t> dimensions() const {
    return Span<const std::int64_t>(dimensions_);
  }
  std::size_t element_count() const { return values_.size(); }
  std::size_t size_bytes() const { return values_.size() * sizeof(T); }
  T* typed_data() { return values_.data(); }
  const T* typed_data() const { return values_.data(); }

 private:
  std::vector<std::int64_t> dimensions_;
  std::vector<T> values_;
};

template <DataType D>
class ResultBuffer {
 public:
  explicit ResultBuffer(Buffer<D>& buffer) : buffer_(&buffer) {}
  Buffer<D>* operator->() const { return buffer_; }

 private:
  Buffer<D>* buffer_;
};

class Error {
 public:
  static Error Success() { return Error(""); }
  static Error InvalidArgument(std::string message) { return Error(message); }
  const std::string& message() const { return message_; }

 private:
  explicit Error(std::string message) : message_(std::move(message)) {}
  std::string message_;
};

// Copies share their threads, as XLA's do.
class ThreadPool {
 public:
  explicit ThreadPool(std::vector<std::thread>& threads) : threads_(&threads) {}
  std::int64_t num_threads() const { return 4; }
  void Schedule(std::function<void()> task) {
    threads_->emplace_back(std::move(task));
  }

 private:
  std::vector<std::thread>* threads_;
};

}  // namespace xla::ffi

// The kernels are called as functions; what they are bound to is not needed.
#define XLA_FFI_DEFINE_HANDLER_SYMBOL(name, function, binding) \
  auto* const name = &(function)

#endif  // DVHFLAX_TESTS_NATIVE_FFI_H_
