// hog: takes and touches memory until it gets no more, says how many pages of
// 64 KiB it has, and ends with code 1.
#include "guest.h"

enum { PAGE = 64 << 10 };

void _start(void) {
  for (;;) {
    size_t page = __builtin_wasm_memory_grow(0, 16);
    if (page == (size_t)-1) break;
    volatile char *p = (volatile char *)(page * PAGE);
    for (size_t at = 0; at < 16 * PAGE; at += 4096) p[at] = 1;
  }
  say_number(ERR, __builtin_wasm_memory_size(0));
  say(ERR, " pages, then no more\n");
  wasi_proc_exit(1);
}
