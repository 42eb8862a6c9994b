package vault

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// hashBuckets is over how many files the hashes of blobs are spread: one at a
// time is in memory.
const hashBuckets = 64

const spiltBytes = 4 + 4 + 32

// spiltHash is the hash of the blob at a place.
type spiltHash struct {
	segment, offset uint32
	hash            [32]byte
}

// spillName is the directory of the files; what a kill left there goes away at
// the next start.
const spillName = "check"

// hashSpill keeps the hashes of blobs on disk until their segments are read.
// The blobs themselves do not say their hash.
type hashSpill struct {
	dir     string
	files   [hashBuckets]*os.File
	writers [hashBuckets]*bufio.Writer
}

func newHashSpill(dir string) (*hashSpill, error) {
	dir, err := os.MkdirTemp(dir, spillName+"-*")
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	s := &hashSpill{dir: dir}
	for i := range s.files {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			s.close()
			return nil, fmt.Errorf("check: %w", err)
		}
		s.files[i], s.writers[i] = f, bufio.NewWriterSize(f, 16<<10)
	}
	return s, nil
}

// removeSpills removes what a check or a reader left that a kill ended.
func removeSpills(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), spillName+"-") || strings.HasPrefix(entry.Name(), scratchName+"-") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}

func (s *hashSpill) add(h spiltHash) error {
	b := make([]byte, 0, spiltBytes)
	b = binary.BigEndian.AppendUint32(b, h.segment)
	b = binary.BigEndian.AppendUint32(b, h.offset)
	_, err := s.writers[h.segment%hashBuckets].Write(append(b, h.hash[:]...))
	return err
}

// read returns the hashes of one file, by segment and offset.
func (s *hashSpill) read(bucket uint32) (map[uint32]map[uint32][32]byte, error) {
	if err := s.writers[bucket].Flush(); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	if _, err := s.files[bucket].Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	out := map[uint32]map[uint32][32]byte{}
	r := bufio.NewReader(s.files[bucket])
	var b [spiltBytes]byte
	for {
		if _, err := io.ReadFull(r, b[:]); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
		segment := binary.BigEndian.Uint32(b[:])
		if out[segment] == nil {
			out[segment] = map[uint32][32]byte{}
		}
		out[segment][binary.BigEndian.Uint32(b[4:])] = [32]byte(b[8:])
	}
}

func (s *hashSpill) close() {
	for _, f := range s.files {
		if f != nil {
			_ = f.Close() // nobody needs it any more
		}
	}
	_ = os.RemoveAll(s.dir) // or at the next start
}
