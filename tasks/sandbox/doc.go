// Package sandbox runs WebAssembly guests that nobody trusts.
//
// A guest never runs in the peer's own process. [Start] starts a child process
// (the same binary under the hidden command [ChildCommand]) for one module;
// [Child.Submit] runs the module in it once per request, one after the other.
// The child holds no key, no socket and no environment. On Linux it gives up,
// in this order: its scheduling class and priority, its resource limits, every
// capability, the file system except two directories (Landlock), every system
// call that it does not need (seccomp), and after compilation the right to make
// memory executable. What was given up is reported as [Layer] values; a
// required layer that is missing makes Start fail with tasks.ErrSandbox.
// Elsewhere the same code runs with fewer layers.
//
// Inside the child a guest gets WASI preview 1 with nothing real behind it: a
// clock that starts at a fixed time and moves one millisecond per reading (a
// sleep moves it, and returns at once), randomness from the request's seed, no
// environment, a staged file or nothing as standard input, captured outputs, and a file system
// whose tree lives in memory: /in, read-only, and /out. Guest paths never
// reach the host; file contents live in flat files named by the sandbox.
//
// Limits of memory, output bytes and files are kept inside the child; time is
// kept outside it: the child is killed. So a hostile guest that took over the
// child still meets the kernel's layers and the parent's clock, and everything
// that the child answers is parsed as hostile bytes.
//
// The child speaks length-prefixed frames over its standard input and output;
// both sides write what is pending in one system call, and at most [Window]
// requests are in flight, so that a task costs microseconds.
package sandbox
