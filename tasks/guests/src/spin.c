// spin [MILLIONS]: computes without a pause, for ever or for so many million
// steps, and prints the result, the same on every machine.
#include "guest.h"

static char *argv[ARGS_MAX];
static char buf[ARGS_BYTES];

void _start(void) {
  uint64_t steps = 0;
  if (args(argv, buf) > 1) steps = number(argv[1]) * 1000000;
  volatile uint64_t forever = steps == 0;
  uint64_t x = 88172645463325252u;
  do {
    for (uint64_t i = 0; i < (steps ? steps : 1000000); i++) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
  } while (forever);
  say_number(OUT, x);
  say(OUT, "\n");
}
