// Package taskrpc carries tasks between peers over gRPC (proto/tasks/v1).
//
// [Service] is the worker's side. It lets callers claim the slots of a
// [Runner], shares them between callers by turns, signs results, and hands out
// the files that tasks wrote. [Client] is the submitter's side; it implements
// scheduler.Worker for a remote peer, and verifies all that comes back.
// [Service.Local] is the same for the peer's own runner, without a network.
//
// A message never says who sent it: Config.Caller takes that from the
// connection. Everything in a message is hostile until checked here: numbers,
// names, sizes, order. What a caller can make a worker hold is bounded by the
// constants in bounds.go.
package taskrpc
