// recurse: calls itself until the stack ends.
#include "guest.h"

static volatile uint64_t bottom;

__attribute__((noinline)) static uint64_t deeper(uint64_t n) {
  return n == bottom ? 0 : deeper(n + 1) * 3 ^ n;
}

void _start(void) { say_number(OUT, deeper(1)); }
