// Package disktest runs a test again as a process of its own and fails that
// process at each of the system calls by which it changes files: it is killed
// there, or the call gives an error. Nothing stands between the program and the
// kernel, so what its libraries do to files is covered too.
//
// Only Linux on amd64 has what that takes (ptrace); elsewhere the package is
// empty, and tests that use it are not built.
package disktest
