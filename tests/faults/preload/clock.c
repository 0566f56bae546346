// A clock that jumps: loaded before libc, for LD_PRELOAD. Every so many looks
// at the time of day it is put forward or back, by up to three days over
// CLOCK_DIVISOR of the environment; what counts from the start of the machine
// stays, as it does on a real one.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static const long kJumps[] = {3600, -86400, 7, -1, 259200, -3600, 0, -172800};
static unsigned looks;

static long offset(void) {
  unsigned look = __atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED);
  const char *divisor = getenv("CLOCK_DIVISOR");
  long by = divisor ? atol(divisor) : 1;
  return kJumps[(look / 13) % (sizeof kJumps / sizeof *kJumps)] / by;
}

int clock_gettime(clockid_t clock, struct timespec *found) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, found);
  if (clock == CLOCK_REALTIME) found->tv_sec += offset();
  return status;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
  struct timespec now;
  (void)zone;
  int status = clock_gettime(CLOCK_REALTIME, &now);
  found->tv_sec = now.tv_sec;
  found->tv_usec = now.tv_nsec / 1000;
  return status;
}

time_t time(time_t *found) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (found) *found = now.tv_sec;
  return now.tv_sec;
}
