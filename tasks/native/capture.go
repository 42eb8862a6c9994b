package native

import (
	"bufio"
	"cmp"
	"errors"
	"os"
	"slices"
	"sync"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// capture keeps what a command writes to one of its output streams, and calls over
// once when that exceeds max or cannot be kept. The beginning is in memory; what is
// longer than a result carries is in a file as a whole.
type capture struct {
	max  int64
	path string // of the file that is made; empty: max needs none
	over func()

	mu   sync.Mutex
	buf  []byte
	size int64
	file *os.File
	out  *bufio.Writer // to file
	full bool
	err  error // why it could not be kept
}

// Write never fails: what is beyond max is thrown away.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	kept := p[:min(int64(len(p)), c.max-c.size)]
	c.size += int64(len(kept))
	if c.path != "" && c.err == nil && c.size > tasks.InlineStdoutBytes {
		c.err = c.spill(kept)
	}
	c.buf = append(c.buf, kept[:min(len(kept), tasks.InlineStdoutBytes-len(c.buf))]...)
	first := (len(kept) < len(p) || c.err != nil) && !c.full
	c.full = c.full || first
	c.mu.Unlock()
	if first {
		c.over()
	}
	return len(p), nil
}

// spill adds to the file, which it begins with what came before; c.mu is held.
func (c *capture) spill(p []byte) (err error) {
	if c.file == nil {
		if c.file, err = os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
		c.out = bufio.NewWriter(c.file)
		if _, err := c.out.Write(c.buf); err != nil {
			return err
		}
	}
	_, err = c.out.Write(p)
	return err
}

// close ends the file, if there is one, and returns its size; 0: there is none, or
// it is not wanted as a whole and was removed. The error says what could not be kept.
func (c *capture) close(whole bool) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return 0, c.err
	}
	err := errors.Join(c.err, c.out.Flush(), c.file.Close())
	c.file = nil
	if whole && err == nil {
		return c.size, nil
	}
	os.Remove(c.path)
	return 0, err
}

// bytes returns what was kept in memory.
func (c *capture) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf
}

// sorted puts files in the order of their names: a walk has "a/b" before "a.c".
func sorted(files []sandbox.File) []sandbox.File {
	slices.SortFunc(files, func(a, b sandbox.File) int { return cmp.Compare(a.Name, b.Name) })
	return files
}
