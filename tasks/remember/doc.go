// Package remember keeps the results of tasks on disk, so that identical work
// need not run again: the same module, arguments, inputs and limits, for the
// same owner, on the same engine.
//
// It is a cache. What it holds was accepted by the verification of its job, and
// serves only jobs that ask for no stronger one. Nothing is synced; a record
// that a crash tore or a disk damaged is not found, and overwritten. The bytes
// that it takes are bounded, and the oldest records make room. It needs no
// memory beyond what waits to be written.
package remember
