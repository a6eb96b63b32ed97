/* Records what a process does to the files below GENREC_CRASH_ROOT, in order, to the file GENREC_CRASH_LOG.
 *
 * Preloaded before libc. A record is a line `operation descriptor number` and, where the operation has them, the lengths of a
 * path and of bytes, followed by these. Only what succeeded is recorded. */
#include "below.h"

__attribute__((constructor)) static void begin(void) { watch(getenv("GENREC_CRASH_ROOT"), getenv("GENREC_CRASH_LOG")); }

static void record(const char *operation, long fd, long number, const char *path, const void *bytes, size_t length) {
  char line[128];
  size_t path_length = path ? strlen(path) : 0;
  int head = snprintf(line, sizeof line, "%s %ld %ld %zu %zu\n", operation, fd, number, path_length, length);
  struct iovec parts[] = {{line, head}, {(void *)path, path_length}, {(void *)bytes, length}};
  pthread_mutex_lock(&lock);
  if (syscall(SYS_writev, log_fd, parts, 3) != (long)(head + path_length + length)) abort();
  pthread_mutex_unlock(&lock);
}

static int opened(int fd, int dir, const char *name, int flags) {
  char path[PATH_MAX];
  if (fd >= 0 && resolve(dir, name, path)) {
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    record(writes ? (flags & O_TRUNC ? "truncate" : "write-open") : "read-open", fd, flags & O_APPEND ? 1 : 0, path, NULL, 0);
  }
  return fd;
}

int open(const char *name, int flags, ...) { MODE return opened(REAL(open)(name, flags, mode), AT_FDCWD, name, flags); }
int open64(const char *name, int flags, ...) { MODE return opened(REAL(open64)(name, flags, mode), AT_FDCWD, name, flags); }
int openat(int dir, const char *name, int flags, ...) { MODE return opened(REAL(openat)(dir, name, flags, mode), dir, name, flags); }
int openat64(int dir, const char *name, int flags, ...) { MODE return opened(REAL(openat64)(dir, name, flags, mode), dir, name, flags); }

ssize_t write(int fd, const void *bytes, size_t length) {
  char path[PATH_MAX];
  ssize_t done = REAL(write)(fd, bytes, length);
  if (done > 0 && resolve_fd(fd, path)) record("write", fd, 0, path, bytes, done);
  return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  char path[PATH_MAX];
  ssize_t done = REAL(writev)(fd, parts, count), left = done;
  if (done > 0 && resolve_fd(fd, path))
    for (int i = 0; i < count && left > 0; i++) {
      size_t length = (size_t)left < parts[i].iov_len ? (size_t)left : parts[i].iov_len;
      record("write", fd, 0, path, parts[i].iov_base, length);
      left -= length;
    }
  return done;
}

/* What the replay does not know must not go unseen. */
#define UNKNOWN(fd) { char path[PATH_MAX]; if (resolve_fd(fd, path)) record("unknown", fd, 0, path, NULL, 0); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { UNKNOWN(fd) return REAL(pwrite)(fd, b, n, at); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) { UNKNOWN(fd) return REAL(pwrite64)(fd, b, n, at); }
ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *to, size_t n, unsigned flags) { UNKNOWN(fd) return REAL(copy_file_range)(in, from, fd, to, n, flags); }
ssize_t sendfile(int fd, int in, off_t *at, size_t n) { UNKNOWN(fd) return ((ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile"))(fd, in, at, n); }
ssize_t sendfile64(int fd, int in, off64_t *at, size_t n) { UNKNOWN(fd) return ((ssize_t(*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64"))(fd, in, at, n); }

static int resized(int result, int fd, off64_t length) {
  char path[PATH_MAX];
  if (result == 0 && resolve_fd(fd, path)) record("resize", fd, length, path, NULL, 0);
  return result;
}
int ftruncate(int fd, off_t length) { return resized(REAL(ftruncate)(fd, length), fd, length); }
int ftruncate64(int fd, off64_t length) { return resized(REAL(ftruncate64)(fd, length), fd, length); }

/* All that is in the file is recorded: some of it may have been written by a mapping. */
static int synced(int result, int fd) {
  char path[PATH_MAX];
  struct stat status;
  if (result != 0 || !resolve_fd(fd, path)) return result;
  if (fstat(fd, &status) != 0) abort();
  if (S_ISDIR(status.st_mode)) {
    record("sync-dir", fd, 0, path, NULL, 0);
    return result;
  }
  char *bytes = malloc(status.st_size + 1);
  int again = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  ssize_t length = again < 0 || !bytes ? -1 : syscall(SYS_read, again, bytes, status.st_size);
  if (length != status.st_size) abort();
  syscall(SYS_close, again);
  record("sync", fd, 0, path, bytes, length);
  free(bytes);
  return result;
}
int fsync(int fd) { return synced(REAL(fsync)(fd), fd); }
int fdatasync(int fd) { return synced(REAL(fdatasync)(fd), fd); }

static int renamed(int result, int from_dir, const char *from, int to_dir, const char *to) {
  char old[PATH_MAX], new[PATH_MAX];
  if (result == 0 && resolve(from_dir, from, old) && resolve(to_dir, to, new)) record("rename", 0, 0, old, new, strlen(new));
  return result;
}
int rename(const char *from, const char *to) { return renamed(REAL(rename)(from, to), AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int d, const char *from, int e, const char *to) { return renamed(REAL(renameat)(d, from, e, to), d, from, e, to); }

static int named(int result, const char *operation, int dir, const char *name) {
  char path[PATH_MAX];
  if (result == 0 && resolve(dir, name, path)) record(operation, 0, 0, path, NULL, 0);
  return result;
}
int mkdir(const char *name, mode_t mode) { return named(REAL(mkdir)(name, mode), "mkdir", AT_FDCWD, name); }
int unlink(const char *name) { return named(REAL(unlink)(name), "remove", AT_FDCWD, name); }
int rmdir(const char *name) { return named(REAL(rmdir)(name), "remove", AT_FDCWD, name); }
int unlinkat(int dir, const char *name, int flags) { return named(REAL(unlinkat)(dir, name, flags), "remove", dir, name); }
