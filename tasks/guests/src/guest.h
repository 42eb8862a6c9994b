// What the guests without a C library need of WASI preview 1: the imports,
// and output of text and numbers. Everything is static so that a guest holds
// only what it uses.
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

#define WASI(name) \
  __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

typedef struct { const void *data; size_t len; } iovec_t;

WASI("args_get") uint16_t wasi_args_get(char **argv, char *buf);
WASI("args_sizes_get") uint16_t wasi_args_sizes_get(size_t *argc, size_t *bytes);
WASI("environ_get") uint16_t wasi_environ_get(char **env, char *buf);
WASI("environ_sizes_get") uint16_t wasi_environ_sizes_get(size_t *count, size_t *bytes);
WASI("clock_time_get") uint16_t wasi_clock_time_get(uint32_t id, uint64_t precision, uint64_t *ns);
WASI("random_get") uint16_t wasi_random_get(void *buf, size_t len);
WASI("poll_oneoff") uint16_t wasi_poll_oneoff(const void *in, void *out, size_t n, size_t *events);
WASI("fd_write") uint16_t wasi_fd_write(uint32_t fd, const iovec_t *iov, size_t n, size_t *written);
WASI("fd_read") uint16_t wasi_fd_read(uint32_t fd, const iovec_t *iov, size_t n, size_t *read);
WASI("fd_close") uint16_t wasi_fd_close(uint32_t fd);
WASI("fd_prestat_get") uint16_t wasi_fd_prestat_get(uint32_t fd, uint32_t *stat);
WASI("path_open") uint16_t wasi_path_open(uint32_t dir, uint32_t lookup, const char *path, size_t len,
  uint16_t oflags, uint64_t rights, uint64_t inheriting, uint16_t fdflags, uint32_t *fd);
WASI("path_symlink") uint16_t wasi_path_symlink(const char *old, size_t oldlen, uint32_t dir,
  const char *path, size_t len);
WASI("path_link") uint16_t wasi_path_link(uint32_t olddir, uint32_t lookup, const char *old, size_t oldlen,
  uint32_t dir, const char *path, size_t len);
WASI("path_rename") uint16_t wasi_path_rename(uint32_t olddir, const char *old, size_t oldlen,
  uint32_t dir, const char *path, size_t len);
WASI("path_filestat_get") uint16_t wasi_path_filestat_get(uint32_t dir, uint32_t lookup,
  const char *path, size_t len, void *stat);
WASI("path_readlink") uint16_t wasi_path_readlink(uint32_t dir, const char *path, size_t len,
  char *buf, size_t size, size_t *used);
WASI("path_create_directory") uint16_t wasi_path_create_directory(uint32_t dir, const char *path, size_t len);
WASI("path_unlink_file") uint16_t wasi_path_unlink_file(uint32_t dir, const char *path, size_t len);
WASI("sock_accept") uint16_t wasi_sock_accept(uint32_t fd, uint16_t flags, uint32_t *accepted);
WASI("sock_recv") uint16_t wasi_sock_recv(uint32_t fd, const iovec_t *iov, size_t n, uint16_t flags,
  size_t *got, uint16_t *oflags);
WASI("sock_send") uint16_t wasi_sock_send(uint32_t fd, const iovec_t *iov, size_t n, uint16_t flags, size_t *sent);
WASI("sock_shutdown") uint16_t wasi_sock_shutdown(uint32_t fd, uint8_t how);
WASI("proc_exit") _Noreturn void wasi_proc_exit(uint32_t code);

enum { OUT = 1, ERR = 2 };

static inline size_t length(const char *s) {
  size_t n = 0;
  while (s[n]) n++;
  return n;
}

// put writes all of data, or ends the guest with code 74 when it cannot.
static inline void put(uint32_t fd, const char *data, size_t len) {
  while (len > 0) {
    size_t written = 0;
    iovec_t v = {data, len};
    if (wasi_fd_write(fd, &v, 1, &written) || written == 0) wasi_proc_exit(74);
    data += written;
    len -= written;
  }
}

static inline void say(uint32_t fd, const char *s) { put(fd, s, length(s)); }

static inline void say_number(uint32_t fd, uint64_t n) {
  char buf[20];
  size_t at = sizeof buf;
  do buf[--at] = (char)('0' + n % 10);
  while (n /= 10);
  put(fd, buf + at, sizeof buf - at);
}

// number reads decimal digits and stops at the first other character.
static inline uint64_t number(const char *s) {
  uint64_t n = 0;
  for (; *s >= '0' && *s <= '9'; s++) n = n * 10 + (uint64_t)(*s - '0');
  return n;
}

enum { ARGS_MAX = 64, ARGS_BYTES = 32 << 10 };

// args fills argv, at most ARGS_MAX, and returns how many there are; more than
// fits ends the guest with code 71.
static inline size_t args(char *argv[ARGS_MAX], char buf[ARGS_BYTES]) {
  size_t argc = 0, bytes = 0;
  if (wasi_args_sizes_get(&argc, &bytes)) return 0;
  if (argc > ARGS_MAX || bytes > ARGS_BYTES) wasi_proc_exit(71);
  return wasi_args_get(argv, buf) ? 0 : argc;
}

#endif
