/* Preloaded into both sides of the benchmark: counts what asks the disk to sync and what is written to files, and makes a
 * sync cost what the scenario says. The file OUTRIGGER_BENCH_SYNC names holds three numbers: how many syncs there were;
 * what one costs: 0 for what the disk takes, 1 for nothing at all (the call is dropped), else so many microseconds on top
 * of what the disk takes; and how many bytes were written. Sockets are written with other calls and are not counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t none[3];
static volatile uint64_t *shared = none;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("OUTRIGGER_BENCH_SYNC");
  int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0)
    return;
  void *mapped = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED)
    shared = mapped;
  close(file);
}

/* Counts one sync. Whether it is to be carried out. */
static int counted(void) {
  __atomic_add_fetch(&shared[0], 1, __ATOMIC_RELAXED);
  return shared[1] != 1;
}

static int delayed(int outcome) {
  uint64_t micros = shared[1];
  if (micros > 1) {
    struct timespec left = {micros / 1000000, (micros % 1000000) * 1000};
    while (nanosleep(&left, &left) != 0)
      ;
  }
  return outcome;
}

static ssize_t wrote(ssize_t outcome) {
  if (outcome > 0)
    __atomic_add_fetch(&shared[2], (uint64_t)outcome, __ATOMIC_RELAXED);
  return outcome;
}

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, #name))

int fsync(int file) { return counted() ? delayed(REAL(fsync, int (*)(int))(file)) : 0; }

int fdatasync(int file) { return counted() ? delayed(REAL(fdatasync, int (*)(int))(file)) : 0; }

int syncfs(int file) { return counted() ? delayed(REAL(syncfs, int (*)(int))(file)) : 0; }

int sync_file_range(int file, off64_t from, off64_t bytes, unsigned flags) {
  return counted() ? delayed(REAL(sync_file_range, int (*)(int, off64_t, off64_t, unsigned))(file, from, bytes, flags)) : 0;
}

int msync(void *at, size_t bytes, int flags) {
  return counted() ? delayed(REAL(msync, int (*)(void *, size_t, int))(at, bytes, flags)) : 0;
}

/* The two calls with which Rust's standard library writes files, looked up once: they are frequent. */
ssize_t write(int file, const void *from, size_t bytes) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real)
    real = REAL(write, ssize_t (*)(int, const void *, size_t));
  return wrote(real(file, from, bytes));
}

ssize_t pwrite64(int file, const void *from, size_t bytes, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real)
    real = REAL(pwrite64, ssize_t (*)(int, const void *, size_t, off64_t));
  return wrote(real(file, from, bytes, at));
}
