/* Which files lie below a directory: shared by the libraries that are preloaded before libc. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The argument that a call to open has where it may make a file. */
#define MODE                                   \
  mode_t mode = 0;                             \
  if (flags & (O_CREAT | O_TMPFILE)) {         \
    va_list rest;                              \
    va_start(rest, flags);                     \
    mode = va_arg(rest, mode_t);               \
    va_end(rest);                              \
  }

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_length;

/* Nothing lies below a root that is not there, or before a log is open. */
static void watch(const char *below, const char *log) {
  if (!below || !log || strlen(below) >= sizeof root) return;
  strcpy(root, below);
  root_length = strlen(root);
  log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_below(const char *path) {
  return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* The path that a descriptor was opened by, if it lies below the root. */
static int resolve_fd(int fd, char *out) {
  if (log_fd < 0 || fd == log_fd) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, out, PATH_MAX - 1);
  if (length < 0) return 0;
  out[length] = 0;
  return is_below(out);
}

/* The path of a name in a directory, if it lies below the root. */
static int resolve(int dir, const char *name, char *out) {
  if (log_fd < 0) return 0;
  if (name[0] == '/') {
    if (snprintf(out, PATH_MAX, "%s", name) >= PATH_MAX) return 0;
    return is_below(out);
  }
  char base[PATH_MAX];
  if (dir != AT_FDCWD) {
    if (!resolve_fd(dir, base)) return 0;
  } else if (!getcwd(base, sizeof base)) {
    return 0;
  }
  if (snprintf(out, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
  return is_below(out);
}
