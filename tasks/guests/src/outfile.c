// outfile NAME [TEXT [TIMES]]: writes TEXT so many times (once by default)
// into the file NAME below /out, with the directories that NAME passes.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[1024] = "/out/";

static int fail(void) {
  write(2, "outfile: cannot write\n", 22);
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 2 || strlen(argv[1]) >= sizeof path - 5) return 2;
  const char *text = argc > 2 ? argv[2] : "";
  long times = argc > 3 ? atol(argv[3]) : 1;
  strcpy(path + 5, argv[1]);
  for (char *p = path + 5; (p = strchr(p, '/')); *p++ = '/') {
    *p = 0;
    mkdir(path, 0777);
  }
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd < 0) return fail();
  for (long i = 0; i < times; i++)
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) return fail();
  return close(fd) ? fail() : 0;
}
