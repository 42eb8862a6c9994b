// cat [FILES...]: copies files to standard output; a name without a slash is one
// of the inputs, - is the standard input, as is no name at all.
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char block[64 << 10];

static int fail(const char *name) {
  write(2, "cat: cannot read ", 17);
  write(2, name, strlen(name));
  write(2, "\n", 1);
  return 1;
}

static int copy(const char *name) {
  char path[512] = "/in/";
  if (strlen(name) >= sizeof path - 4) return fail(name);
  strcpy(path + (strchr(name, '/') ? 0 : 4), name);
  int fd = strcmp(name, "-") ? open(path, O_RDONLY) : 0;
  if (fd < 0) return fail(name);
  ssize_t n;
  while ((n = read(fd, block, sizeof block)) > 0)
    for (ssize_t at = 0, w; at < n; at += w)
      if ((w = write(1, block + at, (size_t)(n - at))) <= 0) return 74;
  close(fd);
  return n < 0 ? fail(name) : 0;
}

int main(int argc, char **argv) {
  int code = argc < 2 ? copy("-") : 0;
  for (int i = 1; i < argc; i++)
    if (copy(argv[i])) code = 1;
  return code;
}
