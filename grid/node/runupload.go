package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	"gotong/grid/blake3"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
)

const (
	// maxRunBytes bounds all files of a run together.
	maxRunBytes = 64 << 30
)

// uploads are the files that a run brought, by content. They lie in a directory
// of the run's own, which its owner removes.
type uploads struct {
	dir   string
	used  int64
	files []upload // that all tasks share, in the order of the request; modules first
	// modules is how many of files are no inputs: 1, or 0 for a native command.
	modules int
}

type upload struct {
	name    string
	content tasks.ContentID
	size    int64
}

type runStream = grpc.BidiStreamingServer[controlv1.RunRequest, controlv1.RunEvent]

// receiveFiles stores the files that start names.
func receiveFiles(stream runStream, dir string, start *controlv1.RunStart) (*uploads, error) {
	u := &uploads{dir: dir, modules: 1}
	if start.Native {
		u.modules = 0
	}
	if len(start.Files) < u.modules || len(start.Files) > u.modules+tasks.MaxInputs {
		return nil, fmt.Errorf("%w: %d files, want a module unless it is native and at most %d inputs", tasks.ErrInvalid, len(start.Files), tasks.MaxInputs)
	}
	for i, file := range start.Files {
		limit := int64(maxRunBytes)
		switch {
		case i < u.modules:
			limit = tasks.MaxModuleBytes
		case !tasks.ValidName(file.Name):
			return nil, fmt.Errorf("%w: an input cannot be called %q", tasks.ErrInvalid, file.Name)
		}
		got, err := u.receive(stream, nil, limit)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", file.Name, err)
		}
		got.name = file.Name
		u.files = append(u.files, got)
	}
	return u, nil
}

// receive stores the pieces of one file, of which the first may be here already,
// and hashes them on the way.
func (u *uploads) receive(stream runStream, first []byte, limit int64) (upload, error) {
	f, err := os.CreateTemp(u.dir, "coming-")
	if err != nil {
		return upload{}, err
	}
	defer os.Remove(f.Name()) // gone when it has its name
	hash, got := blake3.New(), upload{}
	err = u.pieces(stream, first, io.MultiWriter(f, hash), &got.size, limit)
	if err := errors.Join(err, f.Close()); err != nil {
		return upload{}, err
	}
	hash.Sum(got.content[:0])
	path := u.path(got.content)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return upload{}, err
	}
	return got, os.Rename(f.Name(), path)
}

func (u *uploads) pieces(stream runStream, data []byte, w io.Writer, size *int64, limit int64) error {
	for {
		if data != nil {
			*size += int64(len(data))
			if err := u.grow(int64(len(data))); err != nil {
				return err
			}
			if *size > limit {
				return fmt.Errorf("%w: it has more than %s", tasks.ErrInvalid, Size(limit))
			}
			if _, err := w.Write(data); err != nil {
				return err
			}
		}
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if request.GetFileEnd() != nil {
			return nil
		}
		if data = request.GetData(); len(data) == 0 {
			return fmt.Errorf("%w: an empty piece", tasks.ErrInvalid)
		}
	}
}

// store keeps a small file.
func (u *uploads) store(data []byte) (upload, error) {
	got := upload{content: blake3.Sum256(data), size: int64(len(data))}
	path := u.path(got.content)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return got, err
		}
		f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	}
	if errors.Is(err, fs.ErrExist) {
		return got, nil
	}
	if err != nil {
		return got, err
	}
	_, err = f.Write(data)
	return got, errors.Join(err, f.Close(), u.grow(got.size))
}

func (u *uploads) grow(bytes int64) error {
	if u.used += bytes; u.used > maxRunBytes {
		return fmt.Errorf("%w: the files of the run are more than %s", tasks.ErrInvalid, Size(maxRunBytes))
	}
	return nil
}

func (u *uploads) path(id tasks.ContentID) string {
	name := id.String()
	return filepath.Join(u.dir, "content", name[:2], name)
}

// OpenContent implements scheduler.Contents.
func (u *uploads) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	f, err := os.Open(u.path(id))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// size implements source.
func (u *uploads) size(id tasks.ContentID) int64 {
	for _, f := range u.files {
		if f.content == id {
			return f.size
		}
	}
	return 0
}

// module returns the module; zero: there is none.
func (u *uploads) module() tasks.ContentID {
	if u.modules == 0 {
		return tasks.ContentID{}
	}
	return u.files[0].content
}

// inputs returns what all tasks see below /in.
func (u *uploads) inputs() []tasks.Input {
	var out []tasks.Input
	for _, f := range u.files[u.modules:] {
		out = append(out, tasks.Input{Name: f.name, Content: f.content, Size: f.size})
	}
	return out
}
