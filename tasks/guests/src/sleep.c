// sleep MILLISECONDS: waits on the clock, in the one way that WASI offers.
#include "guest.h"

typedef struct {
  uint64_t userdata;
  uint8_t tag;
  uint32_t clock;
  uint64_t timeout;
  uint64_t precision;
  uint16_t flags;
} subscription_t;

static char *argv[ARGS_MAX];
static char buf[ARGS_BYTES];
static char event[32];

void _start(void) {
  size_t events = 0;
  subscription_t s = {.clock = 1};
  if (args(argv, buf) > 1) s.timeout = number(argv[1]) * 1000000;
  if (wasi_poll_oneoff(&s, event, 1, &events)) wasi_proc_exit(1);
}
