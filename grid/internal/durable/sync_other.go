//go:build !unix

package durable

// SyncDir does nothing here: the system has no fsync of a directory, and its
// file system journals renames itself.
func SyncDir(string) error { return nil }
