package shardstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"

	"gotong/grid/blake3"
	"gotong/storage"
)

// pushBytes is how much gathers before the disk is set to work.
const pushBytes = 1 << 20

// writebacker is a File that can begin to write before it is synced.
type writebacker interface{ startWriteback(off, n int64) }

// hashers are kept because each is 18 KiB.
var hashers = sync.Pool{New: func() any { return blake3.New() }}

func getHasher() *blake3.Hasher {
	h := hashers.Get().(*blake3.Hasher)
	h.Reset()
	return h
}

// CreateShard implements storage.ShardCreator. Room for the shard is taken
// before the first byte comes, so a refusal costs no transfer.
func (s *Store) CreateShard(ctx context.Context, header storage.SignedHeader, index int, holders []storage.Holder) (storage.ShardWriter, error) {
	id := storage.ShardID{Segment: header.ID, Index: index}
	w, err := s.create(ctx, header, id, holders)
	if err != nil {
		return nil, &storage.Error{Op: "put", Shard: id, Err: err}
	}
	return w, nil
}

func (s *Store) create(ctx context.Context, header storage.SignedHeader, id storage.ShardID, holders []storage.Holder) (*writer, error) {
	if err := errors.Join(ctx.Err(), s.checkWrite()); err != nil {
		return nil, err
	}
	if header.IsZero() || id.Index < 0 || id.Index >= header.Redundancy.N {
		return nil, fmt.Errorf("%w: no such shard in its header", storage.ErrCorrupt)
	}
	if s.deleted(header) {
		return nil, storage.ErrDeleted
	}
	if err := s.TakeBack(ctx, id); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err // it is here, and cannot be had
	}
	if _, stored := s.cat.lookup(id); !stored {
		if err := s.mayTake(header); err != nil {
			return nil, err
		}
	}
	if err := s.cat.reserve(header, id.Index, s.diskFree()); err != nil {
		if errors.Is(err, storage.ErrExists) {
			s.mergeHolders(id, holders)
			if unsettled := s.settle(shardDir(id.Segment)); unsettled != nil {
				return nil, unsettled // "exists" would be an acknowledgement
			}
		}
		return nil, err
	}
	w := &writer{ctx: ctx, store: s, id: id, header: header, hasher: getHasher(),
		holders: storage.MergeHolders(holders, nil, header.Redundancy.N)}
	if err := w.begin(); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// mayTake judges whether a shard that is not here yet is taken.
func (s *Store) mayTake(header storage.SignedHeader) error {
	if !s.Takes(header.Owner) {
		return errGivenUp
	}
	if s.cfg.Authorize == nil {
		return nil
	}
	return s.cfg.Authorize(header)
}

// diskFree returns how much may be written before the disk is as full as it may
// get. When the system does not tell, the write will.
func (s *Store) diskFree() int64 {
	free, err := s.fs.Free()
	if err != nil {
		return math.MaxInt64
	}
	return int64(min(free, math.MaxInt64)) - s.cfg.KeepFreeBytes
}

// writer writes one shard to a temporary file.
type writer struct {
	ctx     context.Context
	store   *Store
	id      storage.ShardID
	header  storage.SignedHeader
	holders []storage.Holder
	hasher  *blake3.Hasher

	temp    string
	file    File // nil before begin and after the end
	written int
	pushed  int   // of it, on the way to the disk
	err     error // the first one; nothing is stored after it
	ended   bool
}

// begin makes the temporary file with its two pages.
func (w *writer) begin() error {
	s := w.store
	if err := s.makeDir(shardsDir, fanOut(w.id.Segment)); err != nil {
		return err
	}
	w.temp = shardPath(w.id) + "." + strconv.FormatUint(s.temp.Add(1), 10) + tempSuffix
	file, err := s.fs.Create(w.temp)
	if err != nil {
		w.temp = ""
		return ioFailed(err)
	}
	w.file = file
	var pages [payloadOffset]byte
	putHeaderPage(pages[:pageBytes], w.header, w.id.Index)
	putHolderPage(pages[pageBytes:], w.holders)
	if _, err := file.Write(pages[:]); err != nil {
		return ioFailed(err)
	}
	return nil
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if err := w.usable(); err != nil {
		return 0, w.fail(err)
	}
	if len(p) > w.header.ShardBytes-w.written {
		return 0, w.fail(fmt.Errorf("%w: more than the %d bytes of the shard", storage.ErrCorrupt, w.header.ShardBytes))
	}
	_, _ = w.hasher.Write(p) // cannot fail
	n, err := w.file.Write(p)
	w.written += n
	if err != nil {
		return n, w.fail(ioFailed(err))
	}
	w.push()
	return n, nil
}

// push starts to move to the disk what has gathered, where the system can.
func (w *writer) push() {
	if file, ok := w.file.(writebacker); ok && w.written-w.pushed >= pushBytes {
		file.startWriteback(payloadOffset+int64(w.pushed), int64(w.written-w.pushed))
		w.pushed = w.written
	}
}

func (w *writer) usable() error {
	switch {
	case w.err != nil:
		return w.err
	case w.ended:
		return errors.New("the shard was ended before")
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	}
	return w.store.checkWrite()
}

// fail remembers the first error and names the shard in it.
func (w *writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return &storage.Error{Op: "put", Shard: w.id, Err: w.err}
}

// Commit implements storage.ShardWriter.
func (w *writer) Commit() error {
	if err := w.usable(); err != nil {
		err = w.fail(err)
		w.Abort()
		return err
	}
	if err := w.commit(); err != nil {
		err = w.fail(err)
		w.Abort()
		return err
	}
	return nil
}

// commit is the durable order: content, then name, then the directory; only
// then does the shard exist.
func (w *writer) commit() error {
	s := w.store
	if w.written != w.header.ShardBytes {
		return fmt.Errorf("%w: %d of %d bytes came", storage.ErrCorrupt, w.written, w.header.ShardBytes)
	}
	if w.hasher.Sum256() != w.header.Roots[w.id.Index] {
		return fmt.Errorf("%w: the bytes do not match the root in the header", storage.ErrCorrupt)
	}
	if err := w.file.Sync(); err != nil {
		return s.syncFailed(err)
	}
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return s.syncFailed(err)
	}
	release := s.cat.claim(w.id)
	defer release()
	if s.deleted(w.header) {
		return storage.ErrDeleted
	}
	if _, stored := s.cat.lookup(w.id); stored {
		w.end() // another writer was first
		s.mergeHolders(w.id, w.holders)
		return s.settle(shardDir(w.id.Segment))
	}
	if err := s.fs.Rename(w.temp, shardPath(w.id)); err != nil {
		return ioFailed(err)
	}
	w.temp = ""
	if err := s.fs.SyncDir(shardDir(w.id.Segment)); err != nil {
		// Not known to be durable, so it must not come back either.
		_ = s.fs.Remove(shardPath(w.id))
		return s.syncFailed(err)
	}
	s.cat.add(w.header, w.id.Index)
	w.end()
	s.forgetBad(w.id)
	if s.deleted(w.header) {
		// A deletion came that may not have seen this shard. It is not said to
		// be stored, so where it lies is not waited for.
		s.log.Info("segment was deleted while a shard of it came", "segment", w.id.Segment, "shard", w.id.Index)
		if err := s.trashOne(w.id); err != nil {
			return err
		}
		return storage.ErrDeleted
	}
	return nil
}

// Abort implements storage.ShardWriter.
func (w *writer) Abort() { w.end() }

// end frees everything that the writer holds, once.
func (w *writer) end() {
	if w.ended {
		return
	}
	w.ended = true
	if w.file != nil {
		_ = w.file.Close() // thrown away
		w.file = nil
	}
	if w.temp != "" {
		if err := w.store.fs.Remove(w.temp); err != nil {
			w.store.log.Warn("unfinished shard cannot be removed", "segment", w.id.Segment, "shard", w.id.Index, "err", err)
		}
	}
	hashers.Put(w.hasher)
	w.hasher = nil
	w.store.cat.release(w.header)
}
