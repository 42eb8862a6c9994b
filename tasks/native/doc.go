// Package native runs ordinary Linux commands of the donor's machine in
// bubblewrap. A command has namespaces of its own for users, mounts, processes,
// network, System V objects and the host's name. It sees the system's programs and
// libraries read-only, its inputs read-only at /in, and /out and /tmp, which are in
// memory and bounded; no home, no other file, no process but its own. It has no
// network, a fixed environment, no privileges to gain, and a seccomp filter. Time,
// memory, processes, output and files are limited, and its priority is the least.
//
// This process starts nothing but bwrap. Who submits a task chooses neither mounts
// nor environment.
//
// Other than a guest of package sandbox a command is no pure function of its task:
// it sees the clock, the processor and the programs of this machine.
package native
