// fill [bytes|files|dirs]: writes into /out without end: one growing file,
// ever more empty files, or ever deeper directories. Says how far it came and
// ends with code 1 when it is stopped.
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char block[64 << 10];

// decimal writes n before end and returns where it starts.
static char *decimal(char *end, long long n) {
  do *--end = (char)('0' + n % 10);
  while (n /= 10);
  return end;
}

static long long bytes(void) {
  long long total = 0;
  int fd = open("/out/fill", O_WRONLY | O_CREAT, 0666);
  memset(block, 'x', sizeof block);
  for (ssize_t n; fd >= 0 && (n = write(fd, block, sizeof block)) > 0;) total += n;
  return total;
}

static long long files(void) {
  char name[32] = "";
  for (long long i = 0;; i++) {
    char *p = decimal(name + sizeof name - 1, i);
    int fd = open(memcpy(p - 5, "/out/", 5), O_WRONLY | O_CREAT, 0666);
    if (fd < 0) return i;
    close(fd);
  }
}

static long long dirs(void) {
  static char path[60 << 10];
  memcpy(path, "/out", 4);
  for (size_t n = 4; n + 3 < sizeof path; n += 2) {
    memcpy(path + n, "/d", 3);
    if (mkdir(path, 0777)) return (long long)(n - 4) / 2;
  }
  return sizeof path / 2;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "bytes";
  long long n = !strcmp(what, "files") ? files() : !strcmp(what, "dirs") ? dirs() : bytes();
  char line[32];
  char *p = decimal(line + sizeof line, n);
  write(2, "stopped after ", 14);
  write(2, p, (size_t)(line + sizeof line - p));
  write(2, "\n", 1);
  return 1;
}
