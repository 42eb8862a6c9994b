// facts: prints everything that a guest could tell machines apart by:
// arguments, environment, clocks, random bytes. Two runs of one task must
// print the same.
#include "guest.h"

static char *argv[ARGS_MAX];
static char buf[ARGS_BYTES];

static void environment(void) {
  static char *env[ARGS_MAX];
  static char text[ARGS_BYTES];
  size_t count = 0, bytes = 0;
  wasi_environ_sizes_get(&count, &bytes);
  say(OUT, "environment ");
  say_number(OUT, count);
  say(OUT, "\n");
  if (count > ARGS_MAX || bytes > ARGS_BYTES || wasi_environ_get(env, text)) return;
  for (size_t i = 0; i < count; i++) {
    say(OUT, env[i]);
    say(OUT, "\n");
  }
}

static void clocks(void) {
  for (uint32_t id = 0; id < 4; id++) {
    for (int reading = 0; reading < 2; reading++) {
      uint64_t ns = 0;
      uint16_t err = wasi_clock_time_get(id, 1, &ns);
      say(OUT, "clock ");
      say_number(OUT, id);
      say(OUT, err ? " refused " : " ");
      say_number(OUT, err ? err : ns);
      say(OUT, "\n");
    }
  }
}

static void randomness(void) {
  uint64_t word = 0;
  wasi_random_get(&word, sizeof word);
  say(OUT, "random ");
  say_number(OUT, word);
  say(OUT, "\n");
}

void _start(void) {
  size_t argc = args(argv, buf);
  for (size_t i = 0; i < argc; i++) {
    say(OUT, "argument ");
    say(OUT, argv[i]);
    say(OUT, "\n");
  }
  environment();
  clocks();
  randomness();
}
