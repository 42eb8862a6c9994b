package shardstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"gotong/grid/blake3"
	"gotong/storage"
)

const (
	clockName  = "clock"
	clockBytes = 8 + 32           // seconds, hash
	clockEvery = 10 * time.Minute // between two saves while running
)

// runClock counts how long this store was open, over all its life. Retention
// floors are counted by it, because nobody can set it: not the owner, not a
// wrong system clock. What a crash loses only makes floors longer.
type runClock struct {
	store *Store
	mu    sync.Mutex
	base  time.Duration // before this Open
	start time.Time
	saved time.Duration

	anew   bool          // the file was damaged
	newest time.Duration // of all times noted in the store
}

func openClock(s *Store) (*runClock, error) {
	c := &runClock{store: s, start: time.Now()}
	b, err := s.readFile(clockName, clockBytes+1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case len(b) != clockBytes || blake3.Sum256(b[:8]) != [32]byte(b[8:]):
		s.log.Warn("running clock is damaged and begins anew", "file", clockName)
		s.problems.add(Problem{What: "running clock begins anew", Why: fmt.Sprintf("%v: file %s", storage.ErrCorrupt, clockName)})
		c.anew = true
	default:
		c.base = time.Duration(binary.BigEndian.Uint64(b)) * time.Second
	}
	c.saved = c.base
	return c, nil
}

// note takes in a time that was read in the store while it is being opened.
func (c *runClock) note(at time.Duration) { c.newest = max(c.newest, at) }

// settle makes a clock that begins anew go on where the store was last written,
// so that no floor is longer than all that was counted already.
func (c *runClock) settle() {
	if c.anew {
		c.base = max(c.base, c.newest)
	}
}

// stamp returns now in whole seconds, rounded up so that no floor is too short,
// and never 0.
func (c *runClock) stamp() time.Duration {
	return max(time.Second, (c.now() + time.Second - 1).Truncate(time.Second))
}

// now returns the time that the store was open, in all.
func (c *runClock) now() time.Duration {
	return c.base + time.Since(c.start)
}

// tick saves the clock if that was long ago.
func (c *runClock) tick() {
	c.mu.Lock()
	due := c.now()-c.saved >= clockEvery
	c.mu.Unlock()
	if !due {
		return
	}
	if err := c.save(); err != nil {
		c.store.log.Warn("running clock cannot be saved", "err", err)
	}
}

func (c *runClock) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now().Truncate(time.Second)
	b := binary.BigEndian.AppendUint64(nil, uint64(now/time.Second))
	sum := blake3.Sum256(b)
	if err := c.store.writeFile(clockName, append(b, sum[:]...)); err != nil {
		return fmt.Errorf("save running clock: %w", err)
	}
	c.saved = now
	return nil
}
