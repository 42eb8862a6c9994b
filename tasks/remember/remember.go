package remember

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

const (
	// MinBytes is the least that Config.MaxBytes may be.
	MinBytes = 4 << 20
	// buckets is into how many files the records go, by their keys. A lookup
	// reads one.
	buckets = 1024
	// valueShare is how large a record may be, of the size of a bucket.
	valueShare = 2
	// pendingMost is how many bytes wait to be written, at most for flushAfter.
	pendingMost = 1 << 20
	newSuffix   = ".new"
	flushAfter  = 2 * time.Second
)

// Config says where results are kept.
type Config struct {
	Dir      string // made if need be; nothing else is in it
	MaxBytes int64  // at least MinBytes
	Logger   *slog.Logger
}

// Memory is an open store of results. Its methods are safe for concurrent use.
type Memory struct {
	dir    string
	bucket int // bytes
	logger *slog.Logger

	mu      sync.Mutex
	pending map[uint16][]byte // records that are not written yet
	bytes   int               // of them
	ends    map[uint16]int    // where good records end, of the buckets written to
	timer   *time.Timer
	closed  bool
}

// Open opens the store. The caller closes it.
func Open(cfg Config) (*Memory, error) {
	if cfg.MaxBytes < MinBytes {
		return nil, fmt.Errorf("memory of results: %d bytes, at least %d", cfg.MaxBytes, MinBytes)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("memory of results: %w", err)
	}
	m := &Memory{dir: cfg.Dir, bucket: int(min(cfg.MaxBytes/buckets, 1<<30)), logger: cfg.Logger, pending: map[uint16][]byte{}, ends: map[uint16]int{}}
	if m.logger == nil {
		m.logger = slog.New(slog.DiscardHandler)
	}
	m.timer = time.AfterFunc(flushAfter, m.flush)
	m.timer.Stop()
	return m, nil
}

// Close writes what waits. What comes later is not remembered.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.timer.Stop()
	m.flushLocked()
	return nil
}

// Job is what the tasks of a job have in common for this package.
type Job struct {
	Owner  grid.OwnerID
	Engine string // that workers have now
	Verify tasks.Verify
}

// keyContext separates these hashes from others.
const keyContext = "gotong remembered result v1"

type key [32]byte

func (j Job) key(spec [32]byte) key {
	h := blake3.New()
	fmt.Fprintf(h, "%s\x00%s\x00", keyContext, j.Engine)
	h.Write(j.Owner[:])
	h.Write(spec[:])
	return key(h.Sum(nil))
}

func (k key) bucket() uint16 { return binary.LittleEndian.Uint16(k[:]) % buckets }

// How well a result was checked. Above trusted it is the number of sites that
// agree.
const (
	unchecked = 0 // tasks.VerifyNone
	trusted   = 1 // tasks.VerifyAdaptive, of a peer that was trusted
)

// wants returns the least level that serves a verification.
func wants(v tasks.Verify) int {
	switch v.Mode {
	case tasks.VerifyQuorum:
		return v.Need
	case tasks.VerifyAdaptive:
		return trusted
	}
	return unchecked
}

func levelOf(v tasks.Verify, a *scheduler.Accepted) int {
	if a.Checked {
		return len(a.Votes)
	}
	return min(wants(v), trusted)
}

// Known returns what scheduler.Config.Known asks for: results of former jobs
// that serve this one.
func (m *Memory) Known(j Job) func(spec [32]byte, index int) *scheduler.Accepted {
	return func(spec [32]byte, _ int) *scheduler.Accepted {
		value := m.get(j.key(spec))
		if value == nil {
			return nil
		}
		level, r, err := parseValue(value)
		if err != nil || level < wants(j.Verify) || r.Engine != j.Engine {
			return nil
		}
		return &scheduler.Accepted{Result: r, FromCache: true, Checked: level > trusted}
	}
}

// Keep remembers an accepted result of the task with this tasks.Spec.ID, if
// another run would give the same and nothing of it lies elsewhere.
func (m *Memory) Keep(j Job, spec [32]byte, a *scheduler.Accepted) {
	if a.FromCache || !a.State.Final() || a.Measured() || a.Peer.IsZero() {
		return
	}
	if len(a.Large(true)) > 0 {
		return
	}
	value, err := appendValue(levelOf(j.Verify, a), a.Result)
	if err != nil || len(value) > m.bucket/valueShare {
		return
	}
	j.Engine = a.Engine
	m.put(j.key(spec), value)
}

// Forget says that the result of a task proved wrong.
func (m *Memory) Forget(j Job, spec [32]byte) { m.put(j.key(spec), nil) }

// appendValue encodes a result: its level, its peer, and the encoded result.
func appendValue(level int, r tasks.Result) ([]byte, error) {
	peer := r.Peer
	raw, err := taskrpc.EncodeResult(r, [32]byte{})
	if err != nil {
		return nil, err
	}
	b := binary.AppendUvarint(nil, uint64(level))
	b = append(b, peer[:]...)
	return append(b, raw...), nil
}

func parseValue(b []byte) (level int, r tasks.Result, err error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > tasks.MaxVotes || len(b) < n+len(r.Peer) {
		return 0, r, errors.New("malformed record")
	}
	peer := grid.PeerID(b[n : n+len(r.Peer)])
	if r, _, err = taskrpc.DecodeResult(b[n+len(r.Peer):]); err != nil {
		return 0, r, err
	}
	r.Peer = peer
	return int(v), r, nil
}

func (m *Memory) path(bucket uint16) string {
	return filepath.Join(m.dir, strconv.FormatUint(uint64(bucket), 16))
}

// get returns the newest record of a key, nil when there is none.
func (m *Memory) get(k key) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if value, ok := find(m.pending[k.bucket()], k); ok {
		return value
	}
	value, _ := find(m.read(k.bucket()), k)
	return value
}

func (m *Memory) read(bucket uint16) []byte {
	raw, err := os.ReadFile(m.path(bucket))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.logger.Warn("remembered results cannot be read; the tasks run again", "err", err)
	}
	return raw
}

// put adds a record.
func (m *Memory) put(k key, value []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	if m.bytes == 0 {
		m.timer.Reset(flushAfter)
	}
	before := m.pending[k.bucket()]
	after := appendRecord(before, k, value)
	m.pending[k.bucket()] = after
	if m.bytes += len(after) - len(before); m.bytes >= pendingMost {
		m.flushLocked()
	}
}

func (m *Memory) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushLocked()
}

func (m *Memory) flushLocked() {
	for bucket, records := range m.pending {
		if err := m.write(bucket, records); err != nil {
			m.logger.Warn("results cannot be remembered", "err", err)
		}
	}
	clear(m.pending)
	m.bytes = 0
}

// write adds records to a bucket. One that is full is written anew with the
// newest half of it.
func (m *Memory) write(bucket uint16, records []byte) error {
	end, known := m.ends[bucket]
	if !known {
		raw := m.read(bucket)
		end = len(raw) - len(rest(raw))
	}
	delete(m.ends, bucket)
	path := m.path(bucket)
	if end+len(records) > m.bucket {
		kept := newest(append(m.read(bucket), records...), m.bucket/2)
		if err := os.WriteFile(path+newSuffix, kept, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+newSuffix, path); err != nil {
			return err
		}
		m.ends[bucket] = len(kept)
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// What lies behind the good records would hide these.
	if err := f.Truncate(int64(end)); err != nil {
		return err
	}
	if _, err := f.WriteAt(records, int64(end)); err != nil {
		return err
	}
	m.ends[bucket] = end + len(records)
	return nil
}
