// socket: tries every socket call of WASI preview 1 on every low descriptor.
// Prints what went through; ends with code 1 if anything did.
#include "guest.h"

static int through;

static void tried(const char *what, uint32_t fd, uint16_t err) {
  if (err) return;
  through = 1;
  say(OUT, what);
  say(OUT, " on ");
  say_number(OUT, fd);
  say(OUT, "\n");
}

void _start(void) {
  static char buf[16];
  for (uint32_t fd = 0; fd < 64; fd++) {
    uint32_t accepted = 0;
    size_t n = 0;
    uint16_t flags = 0;
    iovec_t v = {buf, sizeof buf};
    tried("accept", fd, wasi_sock_accept(fd, 0, &accepted));
    tried("recv", fd, wasi_sock_recv(fd, &v, 1, 0, &n, &flags));
    tried("send", fd, wasi_sock_send(fd, &v, 1, 0, &n));
    tried("shutdown", fd, wasi_sock_shutdown(fd, 3));
  }
  if (!through) say(OUT, "all refused\n");
  wasi_proc_exit((uint32_t)through);
}
