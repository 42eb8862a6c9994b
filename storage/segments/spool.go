package segments

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gotong/grid/disk"
	"gotong/storage"
)

// DefaultSpoolBytes is what a spool holds unless told otherwise.
const DefaultSpoolBytes = 2 << 30

// SpoolConfig says where a spool is and how large it may grow.
type SpoolConfig struct {
	Dir      string // made when it is missing
	Bytes    int64  // that it holds at most; 0: nothing
	KeepFree uint64 // bytes of the disk that it leaves free
}

// Spool keeps whole segments that are not complete yet, so that the shards that
// are missing can be made without fetching anything. It is a cache: what it
// lacks or has lost is fetched from the holders, and what it gives is verified
// by whoever uses it. It is safe for concurrent use; all errors of its disk
// mean only that something is not in it.
type Spool struct {
	cfg SpoolConfig

	mu      sync.Mutex
	entries map[storage.SegmentID]spooled
	used    int64
	refused int
}

type spooled struct {
	bytes   int64
	since   time.Time
	writing bool // the file is not there yet
}

// SpoolStats is how full a spool is.
type SpoolStats struct {
	Segments int
	Bytes    int64
	Limit    int64
	Refused  int // segments that did not fit since the start
}

// spoolTemp is the beginning of the names of files that are being written.
const spoolTemp = ".new-"

// OpenSpool returns the spool in a directory. Nothing has to be closed. With an
// error it is nil, which Config takes for no spool.
func OpenSpool(cfg SpoolConfig) (*Spool, error) {
	p := &Spool{cfg: cfg, entries: map[storage.SegmentID]spooled{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	files, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	for _, file := range files {
		id, err := storage.ParseSegmentID(file.Name())
		info, errInfo := file.Info()
		if errInfo != nil {
			continue // it is gone
		}
		if err != nil || !info.Mode().IsRegular() || info.Size() > storage.MaxSegmentBytes {
			_ = os.Remove(filepath.Join(cfg.Dir, file.Name())) // the rest of a crash
			continue
		}
		p.entries[id] = spooled{bytes: info.Size(), since: info.ModTime()}
		p.used += info.Size()
	}
	return p, nil
}

func (p *Spool) path(id storage.SegmentID) string { return filepath.Join(p.cfg.Dir, id.String()) }

// add keeps a segment if there is room. Nothing else is dropped for it.
func (p *Spool) add(id storage.SegmentID, data []byte) error {
	if !p.reserve(id, int64(len(data))) {
		return fmt.Errorf("spool: %w", storage.ErrFull)
	}
	if err := p.write(id, data); err != nil {
		p.Remove(id)
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// reserve counts a segment before it is written.
func (p *Spool) reserve(id storage.SegmentID, size int64) bool {
	free, err := disk.Free(p.cfg.Dir)
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.entries[id].bytes
	if p.used-known+size > p.cfg.Bytes || (err == nil && free < p.cfg.KeepFree+uint64(size)) {
		p.refused++
		return false
	}
	p.entries[id] = spooled{bytes: size, since: time.Now(), writing: true}
	p.used += size - known
	return true
}

// write does not sync: a file that a crash spoils does not verify later.
func (p *Spool) write(id storage.SegmentID, data []byte) error {
	f, err := os.CreateTemp(p.cfg.Dir, spoolTemp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.settle(id, f.Name())
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error that matters is the first
	}
	return err
}

// settle gives a written file its name, unless the segment was removed
// meanwhile: then nothing would count the file.
func (p *Spool) settle(id storage.SegmentID, file string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.entries[id]
	if !ok {
		return os.Remove(file)
	}
	known.writing = false
	p.entries[id] = known
	return os.Rename(file, p.path(id))
}

// get returns a segment in buffer, if its capacity suffices; false when it is
// not there. The bytes are not verified.
func (p *Spool) get(id storage.SegmentID, buffer []byte) ([]byte, bool) {
	p.mu.Lock()
	known, ok := p.entries[id]
	p.mu.Unlock()
	if !ok || known.writing {
		return nil, false
	}
	f, err := os.Open(p.path(id))
	if err == nil {
		defer f.Close()
		if int64(cap(buffer)) < known.bytes {
			buffer = make([]byte, known.bytes)
		}
		buffer = buffer[:known.bytes]
		_, err = f.ReadAt(buffer, 0)
	}
	if err != nil {
		p.Remove(id)
		return nil, false
	}
	return buffer, true
}

// Has reports whether the spool has a segment.
func (p *Spool) Has(id storage.SegmentID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.entries[id]
	return ok
}

// Remove drops a segment, if it is there.
func (p *Spool) Remove(id storage.SegmentID) {
	if p.Has(id) {
		if err := os.Remove(p.path(id)); err == nil || errors.Is(err, fs.ErrNotExist) {
			p.forget(id)
		}
	}
}

func (p *Spool) forget(id storage.SegmentID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= p.entries[id].bytes
	delete(p.entries, id)
}

// Retain drops the segments that are not needed, except those younger than age,
// which a backup that still runs may have put there.
func (p *Spool) Retain(needed func(storage.SegmentID) bool, age time.Duration) {
	p.mu.Lock()
	var old []storage.SegmentID
	for id, known := range p.entries {
		if time.Since(known.since) >= age {
			old = append(old, id)
		}
	}
	p.mu.Unlock()
	for _, id := range old {
		if !needed(id) {
			p.Remove(id)
		}
	}
}

// Stats returns how full the spool is.
func (p *Spool) Stats() SpoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return SpoolStats{Segments: len(p.entries), Bytes: p.used, Limit: p.cfg.Bytes, Refused: p.refused}
}
