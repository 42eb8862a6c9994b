package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"gotong/storage"
	"gotong/storage/seal"
)

// Bounds of a Reader.
const (
	fetchesAtOnce  = 2
	leasedSegments = 3 // held in memory for leases, those being fetched included
	maxMoves       = 3 // how often a blob that a prune moves is looked up again
	treeSegments   = 2 // likewise for lists and listings, which many leases must not drive out

	// So many blobs of a segment, with so many bytes in all, are fetched alone
	// before the whole segment is: who reads one small file does not wait for 16
	// MiB, and who reads all of a segment fetches little of it twice.
	aloneBlobs = 8
	aloneBytes = 512 << 10
)

// segmentUse says for what a segment was fetched.
type segmentUse int

const (
	forLeases segmentUse = iota
	forTrees
)

var segmentsFor = [...]int{forLeases: leasedSegments, forTrees: treeSegments}

// ErrMissing says that a blob is in no segment whose table of contents could
// be read.
var ErrMissing = errors.New("not in the vault")

// Reader gives objects back. It fetches whole segments, several at once, and
// keeps the last few, so a restore in the order of the backup fetches each
// once. What many backups made lies scattered over many segments: from the first
// segment that has to be fetched again, those that are fetched are kept on disk
// until Close. It is safe for concurrent use.
type Reader struct {
	v      *Vault
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{} // fetches that may run

	fetched atomic.Uint64 // bytes asked of holders

	mu      sync.Mutex
	free    [][]byte // of segments that were forgotten
	cached  map[uint32]*cachedSegment
	uses    uint64
	changed chan struct{} // closed when a segment becomes free

	healing chan struct{} // held while the index is brought up to date, and to look at the next two
	healed  bool
	healErr error

	scratch   *scratch
	once      numberSet // segments that were fetched
	scattered bool      // one of them again
	alone     map[uint32]alone

	noRanges atomic.Bool // one failed, and whole segments are there without that holder
	random   bool        // a Random decides what is fetched alone

	onlyPresent bool // what only forgotten snapshots need counts as missing
}

// alone says what was fetched of a segment without the rest.
type alone struct{ blobs, bytes uint32 }

type cachedSegment struct {
	row   segmentRow
	use   segmentUse
	ready chan struct{} // closed when data or err is there
	data  []byte
	err   error
	keep  bool // on disk too
	kept  kept // where it is on disk, when data is not here

	pins    int // under Reader.mu, like lastUse
	lastUse uint64
}

// NewReader returns a Reader whose fetches end with ctx. The caller closes it.
func (v *Vault) NewReader(ctx context.Context) (*Reader, error) {
	if err := v.sync(ctx); err != nil {
		return nil, fmt.Errorf("bring index up to date: %w", err)
	}
	r := &Reader{v: v, slots: make(chan struct{}, fetchesAtOnce), cached: map[uint32]*cachedSegment{}, changed: make(chan struct{}),
		healing: make(chan struct{}, 1), scratch: newScratch(v.dir, scratchMost), alone: map[uint32]alone{}}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r, nil
}

// Close ends all fetches and frees the memory.
func (r *Reader) Close() {
	r.cancel()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.cached)
	r.free = nil
	r.scratch.close()
}

// Lease is a promise of one blob: its segment is being fetched, or is there,
// and stays until Release. Of a segment of which little was asked for, Read
// fetches the blob alone.
type Lease struct {
	r       *Reader
	h       [32]byte
	at      location
	segment *cachedSegment // nil: the blob alone
}

// Lease locates a blob and starts to fetch its segment. It waits while other
// leases hold as many segments as the Reader may keep. Errors: ErrMissing and
// what made it so.
func (r *Reader) Lease(h [32]byte) (*Lease, error) { return r.lease(h, forLeases) }

func (r *Reader) lease(h [32]byte, use segmentUse) (*Lease, error) {
	for again := 0; ; again++ {
		at, err := r.locate(h)
		if err != nil {
			return nil, err
		}
		if r.takeAlone(at) {
			return &Lease{r, h, at, nil}, nil
		}
		segment, err := r.pin(at.segment, use)
		if err == nil {
			return &Lease{r, h, at, segment}, nil
		}
		// A prune moves blobs and drops the segments that they were in.
		if !errors.Is(err, errNoSegment) || again == maxMoves {
			return nil, err
		}
	}
}

// locate looks a blob up. When that fails the index is brought up to date, once
// for each Reader: it may be broken, or lack a table of contents that could not
// be read before.
func (r *Reader) locate(h [32]byte) (location, error) {
	id := blobIDOf(r.v.secrets, h)
	at, found, err := r.v.index.lookup(id)
	var failed error // to bring the index up to date
	if err != nil && errors.Is(err, errIndexBroken) || err == nil && !found {
		failed = r.healOnce()
		at, found, err = r.v.index.lookup(id)
	}
	if err == nil && !found && !r.onlyPresent {
		at, found, err = r.v.lookupPast(id)
	}
	switch {
	case err == nil && found:
		return at, nil
	case failed != nil:
		return at, failed
	case err == nil:
		err = fmt.Errorf("%w: blob %x", ErrMissing, id[:6])
	}
	return at, err
}

// healOnce is heal for the first who misses something. Whoever misses something
// meanwhile waits for the end of it.
func (r *Reader) healOnce() error {
	release, err := acquireSlot(r.ctx, r.healing)
	if err != nil {
		return err
	}
	defer release()
	if !r.healed {
		r.healed, r.healErr = true, r.heal()
	}
	return r.healErr
}

// heal brings the index up to date. Segments are cached by number, and numbers
// that no catalogue has may mean another segment afterwards.
func (r *Reader) heal() error {
	if err := r.v.sync(r.ctx); err != nil {
		return fmt.Errorf("bring index up to date: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cached, r.once = map[uint32]*cachedSegment{}, numberSet{}
	clear(r.alone)
	return nil
}

// takeAlone reports whether a blob is to be fetched without its segment, which
// is not here.
func (r *Reader) takeAlone(at location) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.random || r.noRanges.Load() || r.cached[at.segment] != nil || r.once.has(at.segment) {
		return false
	}
	was := r.alone[at.segment]
	is := alone{was.blobs + 1, was.bytes + at.sealed}
	if is.blobs > aloneBlobs || is.bytes > aloneBytes {
		return false
	}
	r.alone[at.segment] = is
	return true
}

// pin returns a segment that stays in memory until it is unpinned.
func (r *Reader) pin(number uint32, use segmentUse) (*cachedSegment, error) {
	for {
		segment, wait, err := r.tryPin(number, use)
		if segment != nil || err != nil {
			return segment, err
		}
		select {
		case <-wait:
		case <-r.ctx.Done():
			return nil, context.Cause(r.ctx)
		}
	}
}

func (r *Reader) tryPin(number uint32, use segmentUse) (*cachedSegment, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	segment := r.cached[number]
	if segment == nil {
		row, err := r.v.row(number)
		if err != nil {
			return nil, nil, err
		}
		segment = &cachedSegment{row: row, use: use, ready: make(chan struct{})}
		if segment.kept = r.scratch.find(row.id); segment.kept.bytes > 0 {
			close(segment.ready)
		} else if !r.makeRoom(use) {
			return nil, r.changed, nil
		} else {
			r.scattered = r.scattered || r.once.has(number)
			r.once.add(number)
			delete(r.alone, number)
			segment.keep = r.scattered
			r.cached[number] = segment
			segment.pins = 1 // the fetch's own: what is on its way is not forgotten
			r.wg.Go(func() {
				defer r.unpin(segment)
				r.fetch(segment)
			})
		}
	}
	r.uses++
	segment.pins++
	segment.lastUse = r.uses
	return segment, nil, nil
}

// makeRoom forgets the segment that was not used for longest, if need be; it
// reports false when all are pinned.
func (r *Reader) makeRoom(use segmentUse) bool {
	var oldest uint32
	var found *cachedSegment
	count := 0
	for number, segment := range r.cached {
		if segment.use != use {
			continue
		}
		count++
		if segment.pins == 0 && (found == nil || segment.lastUse < found.lastUse) {
			oldest, found = number, segment
		}
	}
	if count < segmentsFor[use] {
		return true
	}
	if found == nil {
		return false
	}
	delete(r.cached, oldest)
	if found.err == nil {
		r.free = append(r.free, found.data)
	}
	return true
}

// shardAlign is what shards are rounded up to; a segment is read into whole
// shards.
const shardAlign = 64

// buffer returns memory for a segment: that of one that was forgotten, or new.
func (r *Reader) buffer(row segmentRow) []byte {
	need := int(row.bytes) + int(row.k)*shardAlign
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, b := range r.free {
		if cap(b) >= need {
			r.free = slices.Delete(r.free, i, i+1)
			return b[:0]
		}
	}
	r.free = nil // too short for what is read now
	return make([]byte, 0, need)
}

func (r *Reader) unpin(segment *cachedSegment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	segment.pins--
	if segment.pins == 0 {
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

func (r *Reader) fetch(segment *cachedSegment) {
	defer close(segment.ready)
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-r.ctx.Done():
		segment.err = context.Cause(r.ctx)
		return
	}
	data, err := r.v.get(r.ctx, segment.row, r.buffer(segment.row))
	r.fetched.Add(uint64(len(data)))
	if err == nil && len(data) != int(segment.row.bytes) {
		err = fmt.Errorf("%w: segment %s has %d bytes, not %d", storage.ErrCorrupt, segment.row.id.Short(), len(data), segment.row.bytes)
	}
	if err == nil && segment.keep {
		if err := r.scratch.put(segment.row.id, data); err != nil {
			r.v.log.Debug("segments are fetched again, for they cannot be kept on disk", "err", err)
		}
	}
	segment.data, segment.err = data, err
}

// Release gives the segment free. It is called once.
func (l *Lease) Release() {
	if l.segment != nil {
		l.r.unpin(l.segment)
	}
}

// Bytes returns the length of the blob.
func (l *Lease) Bytes() int { return int(l.at.plain) }

// Read waits for the segment and appends the blob's plaintext to dst; buf is
// memory for what stands between, and is returned for the next call. The error
// is that of the fetch, or storage.ErrCorrupt.
func (l *Lease) Read(dst, buf []byte) (plain, buffer []byte, err error) {
	if l.segment == nil {
		if plain, buf, err = l.r.rangeOf(dst, buf, l.h); err == nil {
			return plain, buf, nil
		}
		l.r.noRanges.Store(true)
		if err := l.fetchWhole(); err != nil {
			return nil, buf, err
		}
	}
	select {
	case <-l.segment.ready:
	case <-l.r.ctx.Done():
		return nil, buf, context.Cause(l.r.ctx)
	}
	if l.segment.err != nil {
		return nil, buf, l.segment.err
	}
	at, data := l.at, l.segment.data
	if kept := l.segment.kept; kept.bytes > 0 {
		at, data, err = l.r.scratch.blob(kept, at)
	}
	if err == nil {
		plain, buf, err = l.r.v.openBlob(dst, buf, l.h, at, data)
	}
	if err == nil {
		return plain, buf, nil
	}
	// The index may be wrong: the pack itself knows where its blobs are.
	if kept := l.segment.kept; kept.bytes > 0 {
		data = l.r.scratch.whole(kept)
	}
	at, found := l.locateInPack(data)
	if !found {
		return nil, buf, fmt.Errorf("segment %s: %w", l.segment.row.id.Short(), err)
	}
	return l.r.v.openBlob(dst, buf, l.h, at, data)
}

// fetchWhole fetches the segment of a blob that cannot be had alone, for this
// lease only: it must not wait until others give theirs free.
func (l *Lease) fetchWhole() error {
	at, row, err := l.r.place(l.h)
	if err != nil {
		return err
	}
	l.at, l.segment = at, &cachedSegment{row: row, ready: make(chan struct{}), pins: 1}
	l.r.fetch(l.segment)
	return l.segment.err
}

// place locates a blob and its segment.
func (r *Reader) place(h [32]byte) (at location, row segmentRow, err error) {
	for range maxMoves + 1 {
		if at, err = r.locate(h); err != nil {
			return at, row, err
		}
		// A prune moves blobs and drops the segments that they were in.
		if row, err = r.v.row(at.segment); !errors.Is(err, errNoSegment) {
			return at, row, err
		}
	}
	return at, row, err
}

// rangeOf appends the plaintext of a blob to dst, which it fetches by a range of
// its segment, whose bytes the encryption vouches for.
func (r *Reader) rangeOf(dst, buf []byte, h [32]byte) (plain, buffer []byte, err error) {
	at, row, err := r.place(h)
	if err != nil {
		return nil, buf, err
	}
	data, err := r.v.segments.Range(r.ctx, row.id, row.holders, int64(at.offset), int64(at.sealed))
	if err != nil {
		return nil, buf, err
	}
	r.fetched.Add(uint64(len(data)))
	at.offset = 0 // in data
	return r.v.openBlob(dst, buf, h, at, data)
}

// openBlob appends the plaintext of a blob to dst. The error is
// storage.ErrCorrupt.
func (v *Vault) openBlob(dst, buf []byte, h [32]byte, at location, data []byte) (plain, buffer []byte, err error) {
	end := int(at.offset) + int(at.sealed)
	if end > len(data) {
		return nil, buf, fmt.Errorf("%w: blob beyond the end of its pack", storage.ErrCorrupt)
	}
	sealed := data[at.offset:end]
	start := len(dst)
	if at.coding == encodingRaw {
		plain, err = v.secrets.OpenBlob(slices.Grow(dst, int(at.plain)), at.coding, h, sealed)
	} else if buf, err = v.secrets.OpenBlob(buf[:0], at.coding, h, sealed); err == nil {
		plain, err = unpack(v.decoder, dst, buf, at.coding, int(at.plain))
	}
	if err == nil && seal.Hash(plain[start:]) != h {
		err = fmt.Errorf("%w: blob does not have its hash", storage.ErrCorrupt)
	}
	return plain, buf, err
}

func (l *Lease) locateInPack(data []byte) (location, bool) {
	entries, err := readTOC(l.r.v.secrets, data)
	if err != nil {
		return location{}, false
	}
	id := blobIDOf(l.r.v.secrets, l.h)
	for _, e := range entries {
		if e.id == id {
			return location{l.at.segment, e.offset, e.sealed, e.plain, e.coding}, true
		}
	}
	return location{}, false
}

// blob returns the plaintext of one blob.
func (r *Reader) blob(h [32]byte, size uint64) ([]byte, error) {
	lease, err := r.lease(h, forTrees)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	plain, _, err := lease.Read(nil, nil)
	if err == nil && size > 0 && uint64(len(plain)) != size {
		err = fmt.Errorf("%w: blob of %d bytes, not %d", storage.ErrCorrupt, len(plain), size)
	}
	return plain, err
}

// Leaves calls fn with each blob of the object's content in order, as a Ref of
// depth 0. It holds one list for each level in memory.
func (r *Reader) Leaves(ref Ref, fn func(Ref) error) error {
	if ref.Size == 0 {
		return nil
	}
	if ref.Depth == 0 {
		return fn(ref)
	}
	list, err := r.blob(ref.Hash, 0)
	if err != nil {
		return err
	}
	children, err := parseList(list, ref.Depth, ref.Size)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := r.Leaves(child, fn); err != nil {
			return err
		}
	}
	return nil
}

// WriteObject writes the whole object to w.
func (r *Reader) WriteObject(w io.Writer, ref Ref) error {
	return r.Leaves(ref, func(leaf Ref) error {
		plain, err := r.blob(leaf.Hash, leaf.Size)
		if err != nil {
			return err
		}
		_, err = w.Write(plain)
		return err
	})
}
