// exit CODE [TEXT]: prints TEXT on standard error and ends with CODE.
#include "guest.h"

static char *argv[ARGS_MAX];
static char buf[ARGS_BYTES];

void _start(void) {
  size_t argc = args(argv, buf);
  if (argc > 2) say(ERR, argv[2]);
  wasi_proc_exit(argc > 1 ? (uint32_t)number(argv[1]) : 0);
}
