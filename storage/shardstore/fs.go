package shardstore

import (
	"io"
	"io/fs"
)

// FS is the file system below a store: one directory tree, names relative to
// its root with forward slashes. It is a seam: tests fail and crash it. Errors
// are those of package os.
type FS interface {
	// Create makes a new file for reading and writing; fs.ErrExist when there
	// is one.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenRW opens an existing file for reading and writing.
	OpenRW(name string) (File, error)
	// Mkdir makes a directory; fs.ErrExist when there is one.
	Mkdir(name string) error
	// Rename moves a file, replacing any other.
	Rename(from, to string) error
	Remove(name string) error
	// ReadDir lists a directory by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Free returns how many bytes this user may still write.
	Free() (uint64, error)
	// Lock keeps other processes out until the result is closed;
	// disk.ErrLocked when one is in.
	Lock(name string) (io.Closer, error)
	// Close frees what the FS itself holds.
	Close() error
}

// File is an open file of an FS.
type File interface {
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the content durable.
	Sync() error
	// Size returns the length in bytes.
	Size() (int64, error)
}
