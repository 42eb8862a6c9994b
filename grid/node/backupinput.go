package node

import (
	"errors"
	"fmt"
	"io"

	controlv1 "gotong/proto/control/v1"
)

// Bounds of the list of files of one backup; it is held in memory.
const (
	maxListedFiles = 1 << 21
	maxListedBytes = 128 << 20
)

var (
	errNoStart  = errors.New("a backup begins with its start")
	errCutShort = errors.New("the command ended before all of its input was there")
)

// backupInput is what a command hands over besides its start: the list of files
// first, then standard input. Both end with the same message, so that what a
// killed command left unfinished is never taken for the whole.
type backupInput struct {
	next  func() (*controlv1.BackupInput, error)
	ahead *controlv1.BackupInput // read already
	rest  []byte                 // of standard input
}

// files takes the list of files.
func (in *backupInput) files() ([]string, error) {
	var files []string
	total := 0
	for {
		message, err := in.message()
		if err != nil {
			return nil, err
		}
		list := message.GetFiles()
		if list == nil {
			in.ahead = message
			return files, nil
		}
		for _, path := range list.Paths {
			if err := wantAbsolute(string(path)); err != nil {
				return nil, err
			}
			files = append(files, string(path))
			total += len(path)
		}
		if len(files) > maxListedFiles || total > maxListedBytes {
			return nil, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("the list has more than %d files or %d MiB", maxListedFiles, maxListedBytes>>20),
				Meaning: "nothing was backed up", Next: "name directories instead, with --exclude for what should stay out"}
		}
	}
}

// Read reads standard input of the command.
func (in *backupInput) Read(b []byte) (int, error) {
	for len(in.rest) == 0 {
		message, err := in.message()
		if err != nil {
			return 0, err
		}
		switch m := message.Input.(type) {
		case *controlv1.BackupInput_Data:
			in.rest = m.Data
		case *controlv1.BackupInput_End:
			in.ahead = message
			return 0, io.EOF
		default:
			return 0, fmt.Errorf("%T amid standard input", m)
		}
	}
	n := copy(b, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

func (in *backupInput) message() (*controlv1.BackupInput, error) {
	if m := in.ahead; m != nil {
		in.ahead = nil
		return m, nil
	}
	m, err := in.next()
	if errors.Is(err, io.EOF) {
		err = errCutShort
	}
	return m, err
}
