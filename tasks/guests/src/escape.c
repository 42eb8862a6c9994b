// escape: tries to reach files outside of what it was given, past the C
// library: by absolute path, by dots, through links that it makes itself, with
// slashes and odd bytes at the end. Prints what it reached; ends with code 1
// if it reached anything.
#include "guest.h"

enum { FDS = 16, FOLLOW = 1, RIGHTS_READ = 1 << 1, OFLAG_DIR = 2, OFLAG_CREATE = 1 };

static int reached;

static const char *const targets[] = {
  "/etc/passwd", "//etc/passwd", "etc/passwd",
  "../etc/passwd", "../../etc/passwd", "../../../etc/passwd",
  "../../../../../../../../../../etc/passwd",
  "./../../../../../../../../etc/passwd", "in/../../etc/passwd",
  "/in/../../etc/passwd", "out/../../../../../../../etc/passwd",
  "/out/../../../../../../../etc/passwd",
  "..", "../", "../.", "../..", "../../..", "../../../", "../../../../../../..",
  "/in/../..", "/in/../../etc", "in/../..", "out/../..", "./..", ".//..//..",
  "/", "/etc", "/etc/", "/proc/self/environ", "/proc/self/root/etc/passwd",
  "/proc/self/fd/0", "/dev/null", "../../../proc/self/environ",
  "..\\..\\..\\etc\\passwd", "C:\\Windows\\win.ini", "\\\\.\\PhysicalDrive0",
  "etc/passwd/", "../etc/passwd/.",
};

enum { TARGETS = sizeof targets / sizeof *targets };

static int readable(uint32_t fd) {
  static char buf[64];
  size_t n = 0;
  iovec_t v = {buf, sizeof buf};
  return !wasi_fd_read(fd, &v, 1, &n) && n > 0;
}

static void report(const char *how, uint32_t dir, const char *path) {
  reached = 1;
  say(OUT, how);
  say(OUT, " ");
  say(OUT, path);
  say(OUT, " from descriptor ");
  say_number(OUT, dir);
  say(OUT, "\n");
}

// leaves tells whether a path climbs above the directory it is resolved in.
static int leaves(const char *p) {
  int depth = 0;
  while (*p) {
    while (*p == '/') p++;
    size_t n = 0;
    while (p[n] && p[n] != '/') n++;
    if (n == 2 && p[0] == '.' && p[1] == '.') {
      if (--depth < 0) return 1;
    } else if (n > 0 && !(n == 1 && p[0] == '.')) {
      depth++;
    }
    p += n;
  }
  return 0;
}

static void open_it(uint32_t dir, const char *path) {
  uint32_t fd = 0;
  size_t len = length(path);
  if (!wasi_path_open(dir, FOLLOW, path, len, 0, RIGHTS_READ, 0, 0, &fd)) {
    if (readable(fd) || leaves(path)) report("opened", dir, path);
    wasi_fd_close(fd);
  }
  if (leaves(path) && !wasi_path_open(dir, FOLLOW, path, len, OFLAG_DIR, 0, 0, 0, &fd)) {
    report("opened directory", dir, path);
    wasi_fd_close(fd);
  }
}

static void stat_it(uint32_t dir, const char *path) {
  static uint64_t stat[16];
  static char buf[256];
  size_t used = 0;
  if (!leaves(path)) return;
  if (!wasi_path_filestat_get(dir, FOLLOW, path, length(path), stat)) report("saw", dir, path);
  if (!wasi_path_readlink(dir, path, length(path), buf, sizeof buf, &used)) report("read link", dir, path);
}

static void write_it(uint32_t dir) {
  static const char up[] = "../gotong-escaped";
  uint32_t fd = 0;
  if (!wasi_path_open(dir, FOLLOW, up, length(up), OFLAG_CREATE, 1 << 6, 0, 0, &fd)) report("created", dir, up);
  if (!wasi_path_create_directory(dir, "../gotong-escaped-dir", 21)) report("made directory", dir, "../gotong-escaped-dir");
  if (!wasi_path_unlink_file(dir, "../../../etc/hostname", 21)) report("removed", dir, "../../../etc/hostname");
}

static void link_it(uint32_t dir, const char *target) {
  static const char name[] = "gotong-link", inside[] = "gotong-link/passwd", slash[] = "gotong-link/";
  uint32_t fd = 0;
  size_t n = sizeof name - 1;
  if (!wasi_path_symlink(target, length(target), dir, name, n)) {
    const char *ways[] = {name, inside, slash};
    for (int i = 0; i < 3; i++) {
      if (wasi_path_open(dir, FOLLOW, ways[i], length(ways[i]), 0, RIGHTS_READ, 0, 0, &fd)) continue;
      if (readable(fd) || i > 0) report("opened through a symbolic link", dir, target);
      wasi_fd_close(fd);
    }
    wasi_path_unlink_file(dir, name, n);
  }
  if (!leaves(target)) return;
  if (!wasi_path_link(dir, FOLLOW, target, length(target), dir, name, n)) {
    report("hard-linked", dir, target);
    wasi_path_unlink_file(dir, name, n);
  }
  if (!wasi_path_rename(dir, target, length(target), dir, name, n)) report("moved", dir, target);
}

void _start(void) {
  for (uint32_t dir = 0; dir < FDS; dir++) {
    for (size_t i = 0; i < TARGETS; i++) {
      open_it(dir, targets[i]);
      stat_it(dir, targets[i]);
      link_it(dir, targets[i]);
    }
    write_it(dir);
  }
  if (!reached) say(OUT, "all refused\n");
  wasi_proc_exit((uint32_t)reached);
}
