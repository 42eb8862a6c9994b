//go:build !linux && !darwin

package snapshot

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	vaultv1 "gotong/proto/vault/v1"
)

// pathDir reads by path. It knows what every system tells: names, sizes, times
// and whether something is read-only.
type pathDir string

// openSource opens a directory by its path.
func openSource(path string) (sourceDir, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("not a directory")}
	}
	return pathDir(path), nil
}

func (d pathDir) join(name string) string { return filepath.Join(string(d), name) }

func (d pathDir) names() ([]string, error) {
	f, err := os.Open(string(d))
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func (d pathDir) lstat(name string) (meta, error) {
	info, err := os.Lstat(d.join(name))
	if err != nil {
		return meta{}, err
	}
	return metaOf(info), nil
}

func metaOf(info os.FileInfo) meta {
	m := meta{mode: uint32(info.Mode().Perm()), size: info.Size(), names: 1,
		mtime: info.ModTime().Unix(), mtimeNanos: int64(info.ModTime().Nanosecond())}
	switch info.Mode().Type() {
	case 0:
		m.kind = vaultv1.Node_FILE
	case os.ModeDir:
		m.kind = vaultv1.Node_DIRECTORY
	case os.ModeSymlink:
		m.kind = vaultv1.Node_SYMLINK
	}
	return m
}

func (d pathDir) openDir(name string) (sourceDir, error) {
	m, err := d.lstat(name)
	if err != nil {
		return nil, err
	}
	if m.kind != vaultv1.Node_DIRECTORY {
		return nil, &os.PathError{Op: "open", Path: d.join(name), Err: errors.New("not a directory")}
	}
	return pathDir(d.join(name)), nil
}

func (d pathDir) openFile(name string) (sourceFile, error) {
	f, err := os.Open(d.join(name))
	if err != nil {
		return nil, err
	}
	return pathFile{f}, nil
}

func (d pathDir) readlink(name string) (string, error)    { return os.Readlink(d.join(name)) }
func (d pathDir) xattrs(string) ([]*vaultv1.Xattr, error) { return nil, nil }
func (d pathDir) ownXattrs() ([]*vaultv1.Xattr, error)    { return nil, nil }
func (d pathDir) close() error                            { return nil }

type pathFile struct{ *os.File }

func (f pathFile) stat() (meta, error) {
	info, err := f.Stat()
	if err != nil {
		return meta{}, err
	}
	return metaOf(info), nil
}

func (f pathFile) xattrs() ([]*vaultv1.Xattr, error) { return nil, nil }

func (f pathFile) seekData(off, size int64) (start, end int64, err error) { return off, size, nil }

func (f pathFile) seek(off int64) error {
	_, err := f.Seek(off, io.SeekStart)
	return err
}

func (f pathFile) close() error { return f.Close() }
