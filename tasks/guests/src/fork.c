// fork: imports fork and execve from its host, which offers neither; a host
// that starts this guest at all has failed.
#include "guest.h"

__attribute__((import_module("env"), import_name("fork"))) int host_fork(void);
__attribute__((import_module("env"), import_name("execve"))) int host_execve(
  const char *path, char **argv, char **env);

void _start(void) {
  for (int i = 0; i < 100; i++) host_fork();
  host_execve("/bin/sh", 0, 0);
  say(OUT, "forked\n");
}
