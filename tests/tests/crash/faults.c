/* Lets what a process does to the files below GENREC_CRASH_ROOT fail: one operation, or all of some kinds from one on.
 *
 * Preloaded before libc. Every operation is a line `kind path` of GENREC_CRASH_LOG, whether it fails or not. A kind is a letter:
 * c create or open to write, o open to read, l list a directory, k look at a name, r read, w write, s sync, m make a directory,
 * n rename, d delete, t truncate, y link.
 *
 * GENREC_FAULT_KIND  the kind of the first operation to fail
 * GENREC_FAULT_AT    which of its kind that is, from 1; none is 0
 * GENREC_FAULT_ERRNO what it fails with; 0 for nothing
 * GENREC_FAULT_KINDS the kinds of which all later operations fail too
 * GENREC_FAULT_SHORT whether the first is a write or a read that is cut to half, before the others fail */
#include "below.h"

static long at, number;
static int code, cut, which;
static const char *kinds = "";

__attribute__((constructor)) static void begin(void) {
  const char *value;
  if ((value = getenv("GENREC_FAULT_KIND"))) which = *value;
  if ((value = getenv("GENREC_FAULT_AT"))) at = atol(value);
  if ((value = getenv("GENREC_FAULT_ERRNO"))) code = atoi(value);
  if ((value = getenv("GENREC_FAULT_KINDS"))) kinds = value;
  cut = getenv("GENREC_FAULT_SHORT") != NULL;
  watch(getenv("GENREC_CRASH_ROOT"), getenv("GENREC_CRASH_LOG"));
}

enum verdict { PASS, SHORTEN, FAIL };

/* Counts an operation and says what becomes of it; errno is set where it fails. */
static enum verdict strike(char kind, const char *path) {
  struct iovec line[] = {{(char[]){kind, ' '}, 2}, {(void *)path, strlen(path)}, {"\n", 1}};
  pthread_mutex_lock(&lock);
  int later = number >= at;
  int now = kind == which && ++number == at;
  if (syscall(SYS_writev, log_fd, line, 3) < 0) abort();
  pthread_mutex_unlock(&lock);
  if (at == 0) return PASS;
  if (now && cut) return SHORTEN;
  if (code == 0 || !(now || (later && strchr(kinds, kind)))) return PASS;
  errno = code;
  return FAIL;
}

static enum verdict named(char kind, int dir, const char *name) {
  char path[PATH_MAX];
  return resolve(dir, name, path) ? strike(kind, path) : PASS;
}

static enum verdict held(char kind, int fd) {
  char path[PATH_MAX];
  return resolve_fd(fd, path) ? strike(kind, path) : PASS;
}

/* Of a length, what is let through. */
static size_t some(enum verdict verdict, size_t length) { return verdict == SHORTEN && length > 1 ? length / 2 : length; }

#define OPEN(dir) if (named((flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT ? 'c' : 'o', dir, name) == FAIL) return -1;
int open(const char *name, int flags, ...) { MODE OPEN(AT_FDCWD) return REAL(open)(name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE OPEN(AT_FDCWD) return REAL(open64)(name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE OPEN(dir) return REAL(openat)(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE OPEN(dir) return REAL(openat64)(dir, name, flags, mode); }
DIR *opendir(const char *name) { return named('l', AT_FDCWD, name) == FAIL ? NULL : REAL(opendir)(name); }

/* Under a name of ours, since libc's declaration says that no name is null: one asks so whether the system has the call. */
int look(int dir, const char *name, int flags, unsigned mask, struct statx *out) __asm__("statx");
int look(int dir, const char *name, int flags, unsigned mask, struct statx *out) {
  enum verdict verdict = !name ? PASS : *name ? named('k', dir, name) : held('k', dir);
  int (*real)(int, const char *, int, unsigned, struct statx *) = dlsym(RTLD_NEXT, "statx");
  return verdict == FAIL ? -1 : real(dir, name, flags, mask, out);
}

ssize_t read(int fd, void *bytes, size_t length) {
  enum verdict verdict = held('r', fd);
  return verdict == FAIL ? -1 : REAL(read)(fd, bytes, some(verdict, length));
}

ssize_t write(int fd, const void *bytes, size_t length) {
  enum verdict verdict = held('w', fd);
  return verdict == FAIL ? -1 : REAL(write)(fd, bytes, some(verdict, length));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  enum verdict verdict = held('w', fd);
  for (; verdict == SHORTEN && count > 0 && !parts[0].iov_len; count--) parts++;
  if (verdict == SHORTEN && count > 0) return REAL(write)(fd, parts[0].iov_base, some(verdict, parts[0].iov_len));
  return verdict == FAIL ? -1 : REAL(writev)(fd, parts, count);
}

#define IF_NOT(kind, fd) return held(kind, fd) == FAIL ? -1 :
ssize_t pread(int fd, void *b, size_t n, off_t from) { IF_NOT('r', fd) REAL(pread)(fd, b, n, from); }
ssize_t pread64(int fd, void *b, size_t n, off64_t from) { IF_NOT('r', fd) REAL(pread64)(fd, b, n, from); }
ssize_t readv(int fd, const struct iovec *parts, int count) { IF_NOT('r', fd) REAL(readv)(fd, parts, count); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t to) { IF_NOT('w', fd) REAL(pwrite)(fd, b, n, to); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t to) { IF_NOT('w', fd) REAL(pwrite64)(fd, b, n, to); }
ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *to, size_t n, unsigned flags) { IF_NOT('w', fd) REAL(copy_file_range)(in, from, fd, to, n, flags); }
ssize_t sendfile(int fd, int in, off_t *from, size_t n) { IF_NOT('w', fd) ((ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile"))(fd, in, from, n); }
ssize_t sendfile64(int fd, int in, off64_t *from, size_t n) { IF_NOT('w', fd) ((ssize_t(*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64"))(fd, in, from, n); }
int ftruncate(int fd, off_t length) { IF_NOT('t', fd) REAL(ftruncate)(fd, length); }
int ftruncate64(int fd, off64_t length) { IF_NOT('t', fd) REAL(ftruncate64)(fd, length); }
int fsync(int fd) { IF_NOT('s', fd) REAL(fsync)(fd); }
int fdatasync(int fd) { IF_NOT('s', fd) REAL(fdatasync)(fd); }

#define UNLESS(kind, dir, name) return named(kind, dir, name) == FAIL ? -1 :
int rename(const char *from, const char *to) { UNLESS('n', AT_FDCWD, to) REAL(rename)(from, to); }
int renameat(int d, const char *from, int e, const char *to) { UNLESS('n', e, to) REAL(renameat)(d, from, e, to); }
int mkdir(const char *name, mode_t mode) { UNLESS('m', AT_FDCWD, name) REAL(mkdir)(name, mode); }
int unlink(const char *name) { UNLESS('d', AT_FDCWD, name) REAL(unlink)(name); }
int rmdir(const char *name) { UNLESS('d', AT_FDCWD, name) REAL(rmdir)(name); }
int unlinkat(int dir, const char *name, int flags) { UNLESS('d', dir, name) REAL(unlinkat)(dir, name, flags); }
int symlink(const char *target, const char *name) { UNLESS('y', AT_FDCWD, name) REAL(symlink)(target, name); }
int symlinkat(const char *target, int dir, const char *name) { UNLESS('y', dir, name) REAL(symlinkat)(target, dir, name); }
int link(const char *from, const char *to) { UNLESS('y', AT_FDCWD, to) REAL(link)(from, to); }
int linkat(int d, const char *from, int e, const char *to, int flags) { UNLESS('y', e, to) REAL(linkat)(d, from, e, to, flags); }
