// Loops over XLA's own threads.

#ifndef DVHFLAX_NATIVE_PARALLEL_H_
#define DVHFLAX_NATIVE_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace dvhflax {

using Index = std::int64_t;

// Runs task(0) ... task(tasks - 1) on XLA's threads and on the caller's. A
// worker that starts late finds nothing left to do and the caller takes what
// nobody has taken, so that waiting here cannot deadlock.
template <class Task>
void Parallel(xla::ffi::ThreadPool& pool, Index tasks, Task task) {
  struct State {
    State(Index tasks, Task task) : tasks(tasks), task(std::move(task)) {}
    const Index tasks;
    Task task;
    std::atomic<Index> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto state = std::make_shared<State>(tasks, std::move(task));
  auto work = [state] {
    for (Index i; (i = state->next++) < state->tasks;) {
      state->task(i);
      if (++state->done == state->tasks) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->all_done.notify_all();
      }
    }
  };
  const Index workers = std::min<Index>(pool.num_threads(), tasks);
  for (Index i = 1; i < workers; ++i) {
    pool.Schedule(std::function<void()>(work));
  }
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == state->tasks; });
}

}  // namespace dvhflax

#endif  // DVHFLAX_NATIVE_PARALLEL_H_
