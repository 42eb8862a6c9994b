package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"gotong/storage"
)

// The index is a bbolt file:
//
//	meta      format, vault, newest head applied, next segment number, first
//	          number that is in no part of the catalogue yet
//	blobs     BlobID → where it is
//	segments  number → segmentRow
//	numbers   SegmentID → number
//	snapshots order → snapshotRow
//	parts     order → KeptPart
//	partrows  SegmentID → segmentRow of a part's segment; number 0
//
// bbolt has no checksums on its pages, so each blob's value carries one over key
// and value: a flipped bit must not pass for a duplicate.
var (
	bucketMeta      = []byte("meta")
	bucketBlobs     = []byte("blobs")
	bucketSegments  = []byte("segments")
	bucketNumbers   = []byte("numbers")
	bucketSnapshots = []byte("snapshots")
	bucketParts     = []byte("parts")
	bucketPartRows  = []byte("partrows")

	keyFormat     = []byte("format")
	keyVault      = []byte("vault")
	keyHead       = []byte("head")
	keyPublished  = []byte("published") // number of the newest head that peers took
	keyNext       = []byte("next")
	keyCatalogued = []byte("catalogued")
	keyUnindexed  = []byte("unindexed") // there when the blobs of some segment are not in
	keyCondemned  = []byte("condemned") // there when some segment may be
	keyUnswept    = []byte("unswept")   // there when blobs may name segments that were dropped
	keyUnpruned   = []byte("unpruned")  // counts what may have left a prune something to do
	keyWaste      = []byte("waste")     // bytes that the last prune left unused
	keyAges       = []byte("ages")      // ageMarks
)

const (
	indexFormat      = 1
	indexLockTimeout = time.Second
	// indexMmapBytes is mapped from the start, so that a growing index seldom
	// has to wait for its readers to map more. It is address space, not memory.
	indexMmapBytes = 64 << 20
)

// errIndexBroken says that the index cannot be believed. The vault sets it
// aside and makes a new one.
var errIndexBroken = errors.New("index is broken")

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// location says where a blob is.
type location struct {
	segment uint32
	offset  uint32
	sealed  uint32
	plain   uint32
	coding  uint8
}

const locationBytes = 4*4 + 1 + 4 // with the checksum

func (l location) encode(id BlobID) []byte {
	b := make([]byte, 0, locationBytes)
	b = binary.BigEndian.AppendUint32(b, l.segment)
	b = binary.BigEndian.AppendUint32(b, l.offset)
	b = binary.BigEndian.AppendUint32(b, l.sealed)
	b = binary.BigEndian.AppendUint32(b, l.plain)
	b = append(b, l.coding)
	return binary.BigEndian.AppendUint32(b, locationSum(id, b))
}

func locationSum(id BlobID, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(id[:], crcTable), crcTable, value)
}

func decodeLocation(id BlobID, b []byte) (location, error) {
	if len(b) != locationBytes || binary.BigEndian.Uint32(b[17:]) != locationSum(id, b[:17]) {
		return location{}, fmt.Errorf("%w: entry of blob %x", errIndexBroken, id[:6])
	}
	l := location{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]),
		binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), b[16]}
	e := tocEntry{offset: l.offset, sealed: l.sealed, plain: l.plain, coding: l.coding}
	if err := e.validate(storage.MaxSegmentBytes); err != nil {
		return location{}, fmt.Errorf("%w: %w", errIndexBroken, err)
	}
	return l, nil
}

// index is the open file. Its lock lets the vault put a new file in the place
// of a broken one while readers look things up.
type index struct {
	path  string
	vault storage.VaultID
	mu    sync.RWMutex
	db    *bbolt.DB
	// broken is set by the first operation that shows it, and makes the next
	// sync put a new index in the place of this one.
	broken atomic.Bool
}

// openIndex opens the index file or makes an empty one. The error is
// errIndexBroken when the file is no index of this vault, ErrBusy when another
// process has it open.
func openIndex(path string, vault storage.VaultID) (*index, error) {
	x := &index{path: path, vault: vault}
	if err := x.open(); err != nil {
		return nil, err
	}
	return x, nil
}

func (x *index) open() error {
	err := guard(func() error {
		db, err := bbolt.Open(x.path, 0o600, &bbolt.Options{
			Timeout: indexLockTimeout, FreelistType: bbolt.FreelistMapType, InitialMmapSize: indexMmapBytes,
			// Without it bbolt walks all pages at the next opening, in a
			// goroutine whose panic on a damaged page nobody can recover.
			NoFreelistSync: false,
		})
		if err != nil {
			return err
		}
		x.db = db
		return nil
	})
	if err == nil {
		if err = x.check(); err == nil {
			return nil
		}
		closeBroken(x.db)
		x.db = nil
	}
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return fmt.Errorf("%w: %s is open in another process", ErrBusy, x.path)
	case errors.Is(err, os.ErrPermission), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("index: %w", err)
	case errors.Is(err, errIndexBroken):
		return err
	}
	return fmt.Errorf("%w: %w", errIndexBroken, err)
}

// check makes the buckets of a new file, and refuses a file that is cut off or
// belongs to another vault.
func (x *index) check() error {
	return x.update(func(tx *bbolt.Tx) error {
		if info, err := os.Stat(x.path); err != nil || info.Size() < tx.Size() {
			return fmt.Errorf("%w: the file is cut off", errIndexBroken)
		}
		fresh := tx.Bucket(bucketMeta) == nil
		for _, name := range [][]byte{bucketMeta, bucketBlobs, bucketSegments, bucketNumbers, bucketSnapshots, bucketParts, bucketPartRows} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if fresh {
			return errors.Join(meta.Put(keyFormat, []byte{indexFormat}), meta.Put(keyVault, x.vault[:]))
		}
		if f := meta.Get(keyFormat); len(f) != 1 || f[0] != indexFormat || string(meta.Get(keyVault)) != string(x.vault[:]) {
			return fmt.Errorf("%w: of another format or vault", errIndexBroken)
		}
		return nil
	})
}

// setAside renames the broken file and opens an empty one in its place. One
// broken file is kept, for whoever wants to know why.
func (x *index) setAside() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db != nil {
		closeBroken(x.db)
		x.db = nil
	}
	if err := os.Rename(x.path, x.path+".broken"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set broken index aside: %w", err)
	}
	return x.openLocked()
}

// closeBroken closes a damaged file, as far as that ends: a panic inside bbolt
// may have left its locks held.
func closeBroken(db *bbolt.DB) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = guard(db.Close)
	}()
	select {
	case <-closed:
	case <-time.After(indexLockTimeout):
	}
}

func (x *index) openLocked() error {
	fresh, err := openIndex(x.path, x.vault)
	if err == nil {
		x.db = fresh.db
		x.broken.Store(false)
	}
	return err
}

func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db == nil {
		return nil
	}
	db := x.db
	x.db = nil
	return guard(db.Close)
}

func (x *index) view(fn func(*bbolt.Tx) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.db == nil {
		return fmt.Errorf("index: %w", os.ErrClosed)
	}
	return x.note(guard(func() error { return x.db.View(fn) }))
}

func (x *index) update(fn func(*bbolt.Tx) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.db == nil {
		return fmt.Errorf("index: %w", os.ErrClosed)
	}
	return x.note(guard(func() error { return x.db.Update(fn) }))
}

// note remembers that the index proved broken.
func (x *index) note(err error) error {
	if errors.Is(err, errIndexBroken) {
		x.broken.Store(true)
	}
	return err
}

// guard turns what bbolt does on a damaged file into errIndexBroken: it panics
// on pages that make no sense and faults on those that the file lacks.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", errIndexBroken, cause)
		}
	}()
	return fn()
}

// lookup returns where a blob is to be read from, be its segment lost: one that
// was lost may be found again.
func (x *index) lookup(id BlobID) (l location, found bool, err error) {
	return x.lookupBut(id, 0)
}

// lookupUsable returns where a blob is that a new snapshot may count on.
func (x *index) lookupUsable(id BlobID) (l location, found bool, err error) {
	return x.lookupBut(id, rowUnreliable)
}

func (x *index) lookupBut(id BlobID, unwanted uint8) (l location, found bool, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketBlobs).Get(id[:])
		if b == nil {
			return nil
		}
		if l, err = decodeLocation(id, b); err != nil {
			return err
		}
		flags, there := rowFlags(tx, l.segment)
		found = there && flags&unwanted == 0
		return nil
	})
	return l, found && err == nil, err
}

// lookupAll calls fn with the segment of each blob, and reports whether a new
// snapshot may count on all of them.
func (x *index) lookupAll(ids []BlobID, fn func(segment uint32)) (all bool, err error) {
	all = true
	err = x.view(func(tx *bbolt.Tx) error {
		blobs := tx.Bucket(bucketBlobs)
		usable := int64(-1) // the segment that was looked at last
		for i := range ids {
			b := blobs.Get(ids[i][:])
			if b == nil {
				all = false
				return nil
			}
			l, err := decodeLocation(ids[i], b)
			if err != nil {
				return err
			}
			if usable != int64(l.segment) {
				if flags, there := rowFlags(tx, l.segment); !there || flags&rowUnreliable != 0 {
					all = false
					return nil
				}
				usable = int64(l.segment)
			}
			fn(l.segment)
		}
		return nil
	})
	return all && err == nil, err
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// metaNumber reads a number of the meta bucket; 0 when it was never written.
func metaNumber(tx *bbolt.Tx, key []byte) uint32 {
	b := tx.Bucket(bucketMeta).Get(key)
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
