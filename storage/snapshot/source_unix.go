//go:build linux || darwin

package snapshot

import (
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	vaultv1 "gotong/proto/vault/v1"
)

// unixDir reads through the *at calls, so paths of any length work and each
// name is resolved once.
type unixDir struct {
	fd   int
	path string // for messages, and where the system has no call by descriptor
}

// openSource opens a directory by its path; links on the way are followed.
func openSource(path string) (sourceDir, error) {
	fd, err := openRetry(unix.AT_FDCWD, path, unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &unixDir{fd, path}, nil
}

func openRetry(dirfd int, name string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Openat(dirfd, name, flags|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (d *unixDir) names() ([]string, error) {
	// A descriptor of its own: reading names moves its offset.
	fd, err := openRetry(d.fd, ".", unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), d.path)
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func (d *unixDir) lstat(name string) (meta, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return meta{}, err
	}
	return metaOf(&st), nil
}

func (d *unixDir) openDir(name string) (sourceDir, error) {
	fd, err := openRetry(d.fd, name, unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return &unixDir{fd, d.path + "/" + name}, nil
}

func (d *unixDir) openFile(name string) (sourceFile, error) {
	fd, err := openRetry(d.fd, name, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return unixFile(fd), nil
}

func (d *unixDir) readlink(name string) (string, error) {
	for size := 256; ; size *= 2 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(d.fd, name, b)
		if err != nil || n < size {
			return string(b[:max(n, 0)]), err
		}
	}
}

func (d *unixDir) xattrs(name string) ([]*vaultv1.Xattr, error) {
	path := entryPath(d.fd, d.path, name)
	attrs, err := readXattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(attr string, b []byte) (int, error) { return unix.Lgetxattr(path, attr, b) })
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // gone since, or the system shows no descriptors as paths
	}
	return attrs, err
}

func (d *unixDir) ownXattrs() ([]*vaultv1.Xattr, error) { return unixFile(d.fd).xattrs() }

func (d *unixDir) close() error { return unix.Close(d.fd) }

// unixFile is a descriptor; os.File would cost more than reading a small file.
type unixFile int

// Read implements io.Reader.
func (f unixFile) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (f unixFile) stat() (meta, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f), &st); err != nil {
		return meta{}, err
	}
	return metaOf(&st), nil
}

func (f unixFile) xattrs() ([]*vaultv1.Xattr, error) {
	return readXattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(int(f), b) },
		func(attr string, b []byte) (int, error) { return unix.Fgetxattr(int(f), attr, b) })
}

func (f unixFile) seek(off int64) error {
	_, err := unix.Seek(int(f), off, io.SeekStart)
	return err
}

func (f unixFile) seekData(off, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	} else if err != nil {
		return off, size, nil //nolint:nilerr // the file system cannot tell: all is data
	}
	if end, err = unix.Seek(int(f), start, unix.SEEK_HOLE); err != nil || end <= start {
		return start, size, nil //nolint:nilerr // likewise
	}
	return start, end, nil
}

func (f unixFile) close() error { return unix.Close(int(f)) }

func metaOf(st *unix.Stat_t) meta {
	m := meta{
		mode: uint32(st.Mode) & modeBits, uid: st.Uid, gid: st.Gid, size: st.Size,
		mtime: int64(st.Mtim.Sec), mtimeNanos: int64(st.Mtim.Nsec), ctime: unix.TimespecToNsec(st.Ctim),
		device: uint64(st.Dev), inode: st.Ino, names: uint64(st.Nlink),
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		m.kind = vaultv1.Node_FILE
		m.mayHaveHoles = st.Blocks*512 < st.Size
	case unix.S_IFDIR:
		m.kind = vaultv1.Node_DIRECTORY
	case unix.S_IFLNK:
		m.kind = vaultv1.Node_SYMLINK
	case unix.S_IFIFO:
		m.kind = vaultv1.Node_FIFO
	case unix.S_IFCHR:
		m.kind = vaultv1.Node_CHARACTER_DEVICE
		m.major, m.minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	case unix.S_IFBLK:
		m.kind = vaultv1.Node_BLOCK_DEVICE
		m.major, m.minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
	return m
}

// readXattrs returns all attributes by rising name. A file system without them
// has none.
func readXattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]*vaultv1.Xattr, error) {
	var space [128]byte
	names, err := growing(space[:], list)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var out []*vaultv1.Xattr
	for start, i := 0, 0; i < len(names); i++ {
		if names[i] != 0 {
			continue
		}
		name := string(names[start:i])
		start = i + 1
		value, err := growing(nil, func(b []byte) (int, error) { return get(name, b) })
		switch {
		case errors.Is(err, errNoXattr): // gone since
		case err != nil:
			return nil, err
		default:
			out = append(out, &vaultv1.Xattr{Name: []byte(name), Value: value})
		}
	}
	slices.SortFunc(out, func(a, b *vaultv1.Xattr) int { return slices.Compare(a.Name, b.Name) })
	return out, nil
}

// growing calls a function that fills a buffer until the buffer suffices.
func growing(b []byte, fill func([]byte) (int, error)) ([]byte, error) {
	if len(b) == 0 {
		b = make([]byte, 128)
	}
	for {
		n, err := fill(b)
		switch {
		case errors.Is(err, unix.ERANGE) && len(b) < maxNodeBytes:
			b = make([]byte, 4*len(b))
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case err != nil:
			return nil, err
		default:
			return b[:n:n], nil
		}
	}
}
