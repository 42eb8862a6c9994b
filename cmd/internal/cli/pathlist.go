package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"gotong/tasks/batch"
)

// iterPaths yields absolute paths, or one error last.
type iterPaths = iter.Seq2[string, error]

// maxPathBytes bounds one path of a list.
const maxPathBytes = 64 << 10

// openPathList opens the file of --files-from or --files-from0, whichever is
// named. What it yields is closed when all was yielded.
func (a *app) openPathList(lines, zeros string) (iterPaths, error) {
	name, end := lines, byte('\n')
	if zeros != "" {
		name, end = zeros, 0
	}
	if name == "-" {
		return pathsOf(a.stdin, end), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return func(yield func(string, error) bool) {
		defer f.Close() // only read
		pathsOf(f, end)(yield)
	}, nil
}

// pathsOf yields the paths of a list that end with a byte; empty ones do not
// count. Relative ones are those of this command's directory.
func pathsOf(r io.Reader, end byte) iterPaths {
	return func(yield func(string, error) bool) {
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, maxPathBytes)
		scanner.Split(batch.EndingWith(end))
		for scanner.Scan() {
			path := scanner.Bytes()
			if end == '\n' {
				path = bytes.TrimSuffix(path, []byte("\r"))
			}
			if len(path) == 0 {
				continue
			}
			full, err := absolute(string(path))
			if bytes.IndexByte(path, 0) >= 0 {
				err = errors.New("the list has zero bytes between its paths: that is --files-from0")
			}
			if !yield(full, err) || err != nil {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			yield("", fmt.Errorf("list of files: %w", err))
		}
	}
}
