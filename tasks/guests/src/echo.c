// echo ARGS...: prints its arguments with a blank between them, and a newline.
#include "guest.h"

static char *argv[ARGS_MAX];
static char buf[ARGS_BYTES];

void _start(void) {
  size_t argc = args(argv, buf);
  for (size_t i = 1; i < argc; i++) {
    if (i > 1) say(OUT, " ");
    say(OUT, argv[i]);
  }
  say(OUT, "\n");
}
