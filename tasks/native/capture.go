package native

import (
	"cmp"
	"slices"
	"sync"

	"gotong/tasks/sandbox"
)

// capture keeps what a command writes to one of its output streams, and calls over
// once when that exceeds max.
type capture struct {
	max  int
	over func()

	mu   sync.Mutex
	buf  []byte
	full bool
}

// Write never fails: what is beyond max is thrown away.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	room := c.max - len(c.buf)
	c.buf = append(c.buf, p[:min(len(p), room)]...)
	first := len(p) > room && !c.full
	c.full = c.full || first
	c.mu.Unlock()
	if first {
		c.over()
	}
	return len(p), nil
}

// bytes returns what was kept.
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
