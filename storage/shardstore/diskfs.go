package shardstore

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gotong/grid/disk"
)

// Modes of what a store makes: nobody else needs to read it.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// diskFS is the FS on a real directory. os.Root keeps every name inside it.
type diskFS struct{ root *os.Root }

// openDisk makes the directory if need be, durably, and opens it.
func openDisk(dir string) (*diskFS, error) {
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, err
		}
		if err := disk.SyncDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &diskFS{root}, nil
}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (d *diskFS) open(name string, flag int) (File, error) {
	f, err := d.root.OpenFile(filepath.FromSlash(name), flag, fileMode)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (d *diskFS) Create(name string) (File, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}
func (d *diskFS) Open(name string) (File, error)   { return d.open(name, os.O_RDONLY) }
func (d *diskFS) OpenRW(name string) (File, error) { return d.open(name, os.O_RDWR) }
func (d *diskFS) Mkdir(name string) error          { return d.root.Mkdir(filepath.FromSlash(name), dirMode) }
func (d *diskFS) Remove(name string) error         { return d.root.Remove(filepath.FromSlash(name)) }
func (d *diskFS) Close() error                     { return d.root.Close() }

func (d *diskFS) Rename(from, to string) error {
	return d.root.Rename(filepath.FromSlash(from), filepath.FromSlash(to))
}

func (d *diskFS) ReadDir(name string) ([]fs.DirEntry, error) {
	return fs.ReadDir(d.root.FS(), name)
}

func (d *diskFS) SyncDir(name string) error {
	dir, err := d.root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return disk.SyncOpenDir(dir)
}

func (d *diskFS) Free() (uint64, error) { return disk.Free(d.root.Name()) }

func (d *diskFS) Lock(name string) (io.Closer, error) {
	f, err := d.root.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := disk.Lock(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", d.root.Name(), err)
	}
	return f, nil // closing the file gives the lock back
}
