// Package tasks is the vocabulary of the task layer: what a task runs, under
// which limits, and how it ended. A task is one run of a WASI preview 1 module
// on one item; a job is a batch of tasks.
//
// A task is a pure function of its Spec: the sandbox gives it a clock that
// starts at a fixed time, randomness seeded by Spec.Seed, sorted directories
// and no environment. So the same Spec gives the same Result on every machine,
// and asking another peer to run it again is always safe.
//
// The package imports the standard library, grid and storage only.
package tasks

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"strconv"

	"gotong/grid"
)

const idBytes = 32

// JobID names a job.
type JobID [idBytes]byte

// NewJobID returns a random JobID.
func NewJobID() (id JobID) {
	rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// String returns 64 hex digits.
func (id JobID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 12 hex digits, for people.
func (id JobID) Short() string { return id.String()[:12] }

// IsZero reports whether id names nothing.
func (id JobID) IsZero() bool { return id == JobID{} }

// Compare orders JobIDs by their bytes.
func (id JobID) Compare(other JobID) int { return bytes.Compare(id[:], other[:]) }

// ParseJobID reads what JobID.String wrote.
func ParseJobID(s string) (id JobID, err error) { return id, grid.ParseHex("job", s, id[:]) }

// ContentID names bytes (a module, an input, an output): their BLAKE3 hash.
type ContentID [idBytes]byte

// String returns 64 hex digits.
func (id ContentID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 12 hex digits, for people.
func (id ContentID) Short() string { return id.String()[:12] }

// IsZero reports whether id names nothing.
func (id ContentID) IsZero() bool { return id == ContentID{} }

// ParseContentID reads what ContentID.String wrote.
func ParseContentID(s string) (id ContentID, err error) {
	return id, grid.ParseHex("content", s, id[:])
}

// TaskID names one task of a job.
type TaskID struct {
	Job   JobID
	Index int // 0 … number of tasks - 1, in the order of the items
}

// String returns JOB.INDEX.
func (id TaskID) String() string { return id.Job.String() + "." + strconv.Itoa(id.Index) }

// Short returns the job's first 12 hex digits, a dot and the index, for people.
func (id TaskID) Short() string { return id.Job.Short() + "." + strconv.Itoa(id.Index) }

// Task is one thing to run.
type Task struct {
	ID   TaskID
	Spec Spec
}
