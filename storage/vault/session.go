package vault

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"gotong/storage"
)

// DefaultPacksInFlight is how many packs are being sent while others fill.
const DefaultPacksInFlight = 2

// Session writes to the vault: objects by its Writers and Listings, and one
// snapshot in the end. Its memory is bounded: a pack buffer of 16 MiB for each
// pack in flight, one for content and one for trees, whatever the data.
//
// The first error of any part ends the whole session; what was committed until
// then stays and is found by the next one.
type Session struct {
	v      *Vault
	ctx    context.Context
	cancel context.CancelCauseFunc
	dry    bool // stores nothing

	mu      sync.Mutex
	pending map[BlobID]struct{} // claimed, not in the index yet
	used    numberSet           // segments that the snapshot needs

	packMu  sync.Mutex
	open    [packKinds]*pack
	buffers chan *pack // free; its capacity bounds the packs

	flushing  sync.WaitGroup
	stopOnce  sync.Once
	stored    chan storedPack // committed, on their way into the index
	committed chan struct{}   // closed when the committer has ended
	newerHead chan error      // whether peers know a newer head; room for the one answer
	asking    sync.WaitGroup  // for that answer

	stats  sessionStats
	health health
}

type sessionStats struct {
	newBytes, duplicateBytes, segments, storedBytes atomic.Uint64
}

// Stats counts what a session has done so far.
type Stats struct {
	NewBytes       uint64 // plaintext that was not in the vault before
	DuplicateBytes uint64 // content that was; what was not read again does not count
	Segments       uint64 // committed
	StoredBytes    uint64 // of all shards of those
}

// Stats returns the counts; it may be called at any time.
func (s *Session) Stats() Stats {
	return Stats{s.stats.newBytes.Load(), s.stats.duplicateBytes.Load(), s.stats.segments.Load(), s.stats.storedBytes.Load()}
}

func newSession(ctx context.Context, v *Vault) *Session {
	packs := v.config.PacksInFlight + int(packKinds)
	s := &Session{
		v: v, pending: map[BlobID]struct{}{}, health: newHealth(),
		buffers: make(chan *pack, packs), stored: make(chan storedPack, packs), committed: make(chan struct{}),
		newerHead: make(chan error, 1),
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	for range packs {
		s.buffers <- &pack{}
	}
	return s
}

// Context ends when the session fails or is aborted; its cause says why.
func (s *Session) Context() context.Context { return s.ctx }

// fail ends the session; the first cause stands.
func (s *Session) fail(err error) { s.cancel(err) }

func (s *Session) err() error { return context.Cause(s.ctx) }

// claim reports whether a blob has to be stored by the caller: it is neither in
// the vault nor on its way there.
func (s *Session) claim(id BlobID) (fresh bool, err error) {
	if !s.claimPending(id) {
		return false, nil
	}
	s.v.refs.RLock()
	defer s.v.refs.RUnlock()
	l, found, err := s.v.index.lookupUsable(id)
	if err != nil || !found {
		return !found, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, id)
	s.used.add(l.segment)
	return false, nil
}

func (s *Session) claimPending(id BlobID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pending[id]; ok {
		return false
	}
	s.pending[id] = struct{}{}
	return true
}

// Reuse marks blobs of an earlier snapshot as needed by this one. It reports
// false, and the object must be stored anew, when one of them is not in the
// vault any more.
func (s *Session) Reuse(ids []BlobID) (bool, error) {
	var segments [64]uint32
	found := segments[:0]
	s.v.refs.RLock()
	defer s.v.refs.RUnlock()
	all, err := s.v.index.lookupAll(ids, func(segment uint32) {
		if len(found) == 0 || found[len(found)-1] != segment {
			found = append(found, segment)
		}
	})
	if err != nil || !all {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, segment := range found {
		s.used.add(segment)
	}
	return true, nil
}

// reserve returns the place for a blob of e.sealed bytes and the pack to tell
// once it is sealed. It waits while all packs are in flight.
func (s *Session) reserve(kind packKind, e tocEntry) (*pack, []byte, error) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	if p := s.open[kind]; p != nil && !p.fits(int(e.sealed)) {
		s.open[kind] = nil
		s.flush(p)
	}
	if s.open[kind] == nil {
		select {
		case p := <-s.buffers:
			s.open[kind] = p
		case <-s.ctx.Done():
			return nil, nil, s.err()
		}
	}
	p := s.open[kind]
	if p.buf == nil {
		p.buf = make([]byte, 0, storage.MaxSegmentBytes)
	}
	return p, p.reserve(e), nil
}

// flush sends a closed pack in the background.
func (s *Session) flush(p *pack) {
	s.flushing.Go(func() {
		p.filling.Wait()
		if err := s.send(p); err != nil {
			s.fail(err)
			return
		}
		p.buf, p.entries = p.buf[:0], nil
		s.buffers <- p
	})
}

func (s *Session) send(p *pack) error {
	data, tocOffset, tocBytes := p.finish(s.v.secrets)
	put, err := s.put(data)
	if err != nil {
		return err
	}
	row := put.row(len(data))
	row.tocOffset, row.tocBytes = uint32(tocOffset), uint32(tocBytes)
	s.stored <- storedPack{row, p.entries} // waits while the index is far behind
	return nil
}

// put stores one segment and counts it.
func (s *Session) put(data []byte) (Stored, error) {
	put, err := s.v.segments.Put(s.ctx, data)
	if err != nil {
		return Stored{}, fmt.Errorf("store segment: %w", err)
	}
	s.stats.segments.Add(1)
	s.stats.storedBytes.Add(uint64(put.ShardBytes) * uint64(put.Redundancy.N))
	s.health.add(put.flags(), clampSites(put.SurvivesSites))
	return put, nil
}

// enterAtOnce is how many blobs a transaction has when no more packs join it.
// Blobs lie all over the index, so each may cost the transaction a page.
const enterAtOnce = maxPackBlobs / 2

// commitPacks brings committed packs into the index, those that wait together,
// so that a slow disk makes few large transactions.
func (s *Session) commitPacks() {
	defer close(s.committed)
	for p := range s.stored {
		batch, blobs := []storedPack{p}, len(p.entries)
		for more := true; more && blobs < enterAtOnce; {
			select {
			case next, ok := <-s.stored:
				if more = ok; ok {
					batch = append(batch, next)
					blobs += len(next.entries)
				}
			default:
				more = false
			}
		}
		if err := s.enter(batch); err != nil {
			s.fail(fmt.Errorf("index: %w", err))
		}
	}
}

// enter brings packs into the index and makes them needed at once, so that no
// prune takes them for what nobody needs.
func (s *Session) enter(batch []storedPack) error {
	s.v.refs.RLock()
	defer s.v.refs.RUnlock()
	if err := s.v.index.addPacks(batch); err != nil {
		return err
	}
	s.settle(batch)
	return nil
}

// settle forgets the claims on blobs that the index knows now.
func (s *Session) settle(batch []storedPack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		s.used.add(p.row.number)
		for _, e := range p.entries {
			delete(s.pending, e.id)
		}
	}
}

// drain sends what is open and waits until all packs are in the index.
func (s *Session) drain() error {
	s.packMu.Lock()
	data, tree := s.open[packData], s.open[packTree]
	s.open = [packKinds]*pack{}
	s.packMu.Unlock()
	if data != nil && tree != nil {
		data.filling.Wait()
		tree.filling.Wait()
		if data.absorb(tree) {
			tree = nil
		}
	}
	for _, p := range []*pack{data, tree} {
		if p != nil {
			s.flush(p)
		}
	}
	s.stop()
	return s.err()
}

// stop waits until nothing of the session runs any more.
func (s *Session) stop() {
	s.stopOnce.Do(func() {
		s.flushing.Wait()
		close(s.stored)
		<-s.committed
	})
}

// Abort ends the session without a snapshot. What was committed stays in the
// index. After Commit it does nothing, so it can be deferred. Nobody may use a
// Writer of the session any more.
func (s *Session) Abort() {
	s.fail(context.Canceled)
	s.packMu.Lock()
	s.open = [packKinds]*pack{}
	s.packMu.Unlock()
	s.stop()
	s.asking.Wait()
	s.v.release(s)
}
