// flood [BYTES [FD]]: writes so many bytes, or bytes without end, to standard
// output or to descriptor FD: the digits 0 to 9 over and over.
#include "guest.h"

static char *argv[ARGS_MAX];
static char buf[ARGS_BYTES];
static char block[10 * 1024];

void _start(void) {
  uint64_t left = 0;
  uint32_t fd = OUT;
  size_t argc = args(argv, buf);
  if (argc > 1) left = number(argv[1]);
  if (argc > 2) fd = (uint32_t)number(argv[2]);
  for (size_t i = 0; i < sizeof block; i++) block[i] = (char)('0' + i % 10);
  if (argc < 2)
    for (;;) put(fd, block, sizeof block);
  for (; left > sizeof block; left -= sizeof block) put(fd, block, sizeof block);
  put(fd, block, (size_t)left);
}
