// Package disk is the one place for what the rest asks of an operating
// system's file system beyond package os: small files that a power cut leaves
// old or new but never mixed, directories made durable, a lock on a file
// between processes, and the space that is left.
package disk

import "errors"

// ErrLocked says that another process, or another open file of this one, holds
// the lock.
var ErrLocked = errors.New("in use by another process")
