package batch

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
)

// DefaultBlockBytes is the size of blocks when nothing is said.
const DefaultBlockBytes = 1 << 20

// Splitter cuts a stream into blocks of whole records. A record begins with
// RecordStart and ends with RecordEnd, where these are not empty.
type Splitter struct {
	Block       int64  // bytes of a block, at most; 0: DefaultBlockBytes. A longer record makes it grow
	Records     int    // of one block; 0: as many as fit
	RecordStart string //
	RecordEnd   string // both empty: records are cut anywhere
}

// Validate reports what is wrong with s.
func (s Splitter) Validate() error {
	switch {
	case s.Block < 0 || s.Block > MaxBlockBytes:
		return syntax("a block of %d bytes, at most %d", s.Block, MaxBlockBytes)
	case s.Records < 0:
		return syntax("%d records in a block", s.Records)
	case len(s.RecordStart)+len(s.RecordEnd) > MaxValueBytes:
		return syntax("a separator of more than %d KiB", MaxValueBytes>>10)
	}
	return nil
}

// Blocks yields the blocks of r, in order, none of them empty. A block is valid
// until the next one. An error is the last thing that is yielded.
func (s Splitter) Blocks(r io.Reader) iter.Seq2[[]byte, error] {
	if s.Block == 0 {
		s.Block = DefaultBlockBytes
	}
	return func(yield func([]byte, error) bool) {
		c := &cutter{Splitter: s, r: r, limit: int(s.Block)}
		for {
			block, err := c.next()
			if err == nil && !yield(block, nil) {
				return
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield(nil, err)
				}
				return
			}
		}
	}
}

// cutter holds what was read and not yielded yet.
type cutter struct {
	Splitter
	r     io.Reader
	buf   []byte
	limit int // bytes of buf at which a cut is looked for
	given int // bytes of buf that were yielded
	ended bool
}

// next returns the next block, or io.EOF.
func (c *cutter) next() ([]byte, error) {
	c.buf = c.buf[:copy(c.buf, c.buf[c.given:])]
	c.given = 0
	for {
		if err := c.fill(); err != nil {
			return nil, err
		}
		if n := c.cut(); n > 0 {
			c.given = n
			return c.buf[:n], nil
		}
		if c.ended {
			if len(c.buf) == 0 {
				return nil, io.EOF
			}
			c.given = len(c.buf)
			return c.buf, nil
		}
		if c.limit >= MaxBlockBytes {
			return nil, syntax("a record of more than %d MiB", MaxBlockBytes>>20)
		}
		c.limit = min(MaxBlockBytes, int(math.Ceil(1.3*float64(c.limit)+1)))
	}
}

// fill reads until buf has limit bytes.
func (c *cutter) fill() error {
	if missing := c.limit - len(c.buf); !c.ended && missing > 0 {
		have := len(c.buf)
		c.buf = append(c.buf, make([]byte, missing)...)
		n, err := io.ReadFull(c.r, c.buf[have:])
		c.buf = c.buf[:have+n]
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			c.ended = true
		case err != nil:
			return err
		}
	}
	return nil
}

// cut returns where the block in buf ends; 0: not in what was read.
func (c *cutter) cut() int {
	between := c.RecordEnd + c.RecordStart
	if c.Records > 0 {
		at := 0
		for range c.Records {
			n := c.first(c.buf[at:], between)
			if n == 0 {
				return 0
			}
			at += n
		}
		return at
	}
	if c.ended && len(c.buf) < c.limit {
		return len(c.buf)
	}
	if between == "" {
		return len(c.buf)
	}
	if i := bytes.LastIndex(c.buf, []byte(between)); i >= 0 {
		return i + len(c.RecordEnd)
	}
	return 0
}

// first returns where the first record of b ends; 0: not in b.
func (c *cutter) first(b []byte, between string) int {
	if len(b) == 0 {
		return 0
	}
	if between == "" {
		return 1
	}
	from := 0
	if c.RecordEnd == "" {
		from = 1 // b begins with the start of this record
	}
	if i := bytes.Index(b[from:], []byte(between)); i >= 0 {
		return from + i + len(c.RecordEnd)
	}
	return 0
}

// ParseSize reads a number of bytes as GNU parallel does: K, M, G for powers of
// 1024, k, m, g for powers of 1000.
func ParseSize(s string) (int64, error) {
	number, unit := s, 1.0
	if n := len(s); n > 0 {
		units := map[byte]float64{'k': 1e3, 'm': 1e6, 'g': 1e9, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}
		if u, ok := units[s[n-1]]; ok {
			number, unit = s[:n-1], u
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v > 0) || v*unit > 1<<62 {
		return 0, syntax("%q is no size; write 10M", s)
	}
	return int64(v * unit), nil
}

// Unescape replaces \n, \t, \r, \0 and \\ in a separator.
func Unescape(s string) string {
	return strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r", `\0`, "\x00", `\\`, `\`).Replace(s)
}
