package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/zeebo/blake3"
	"google.golang.org/grpc"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
)

// maxRunFiles bounds the files of one run: its module and its inputs.
const maxRunFiles = 1 + tasks.MaxInputs

// uploads are the files that a run brought, by content. They lie in a directory
// of the run's own, which its owner removes.
type uploads struct {
	dir   string
	files []upload // in the order of the request; the module first
}

type upload struct {
	name    string
	path    string
	content tasks.ContentID
	size    int64
}

type runStream = grpc.BidiStreamingServer[controlv1.RunRequest, controlv1.RunEvent]

// receiveFiles stores the files that follow a start, up to the end.
func receiveFiles(stream runStream, dir string, start *controlv1.RunStart) (*uploads, error) {
	if len(start.Files) == 0 || len(start.Files) > maxRunFiles {
		return nil, fmt.Errorf("%w: %d files, want a module and at most %d inputs", tasks.ErrInvalid, len(start.Files), tasks.MaxInputs)
	}
	u := &uploads{dir: dir}
	for i, file := range start.Files {
		if i > 0 && !tasks.ValidName(file.Name) {
			return nil, fmt.Errorf("%w: an input cannot be called %q", tasks.ErrInvalid, file.Name)
		}
		got, err := receiveFile(stream, filepath.Join(dir, strconv.Itoa(i)), i == 0)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", file.Name, err)
		}
		got.name = file.Name
		u.files = append(u.files, got)
	}
	request, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if request.GetEnd() == nil {
		return nil, fmt.Errorf("%w: more than the announced files", tasks.ErrInvalid)
	}
	return u, nil
}

// receiveFile stores the pieces of one file and hashes them on the way.
func receiveFile(stream runStream, path string, module bool) (upload, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return upload{}, err
	}
	got := upload{path: path}
	hash := blake3.New()
	err = receivePieces(stream, io.MultiWriter(f, hash), &got.size, module)
	if err := errors.Join(err, f.Close()); err != nil {
		return upload{}, err
	}
	hash.Sum(got.content[:0])
	return got, nil
}

func receivePieces(stream runStream, w io.Writer, size *int64, module bool) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if request.GetFileEnd() != nil {
			return nil
		}
		data := request.GetData()
		if len(data) == 0 {
			return fmt.Errorf("%w: an empty piece", tasks.ErrInvalid)
		}
		*size += int64(len(data))
		if module && *size > tasks.MaxModuleBytes {
			return fmt.Errorf("%w: a module of more than %s", tasks.ErrInvalid, Size(tasks.MaxModuleBytes))
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
}

// OpenContent implements scheduler.Contents.
func (u *uploads) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	for _, f := range u.files {
		if f.content == id {
			r, err := os.Open(f.path)
			return r, f.size, err
		}
	}
	return nil, 0, fmt.Errorf("content %s is not of this run", id.Short())
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

// inputs returns what tasks see below /in.
func (u *uploads) inputs() []tasks.Input {
	var out []tasks.Input
	for _, f := range u.files[1:] {
		out = append(out, tasks.Input{Name: f.name, Content: f.content, Size: f.size})
	}
	return out
}
