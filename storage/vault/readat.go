package vault

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"gotong/storage"
)

// Bounds of a Random.
const (
	// DefaultRandomBytes of blobs are kept by a Random.
	DefaultRandomBytes = 64 << 20
	rangesAtOnce       = 8
	// When so many blobs of one segment with so many bytes, or very many small
	// ones, were read one after another, the whole segment is fetched: from k
	// holders at once, and verified.
	wholeAfter      = 4
	wholeAfterBytes = 2 << 20
	wholeAfterSmall = 64
	// near is how far apart two blobs in a row may be in their segment.
	near = 256 << 10
	// maxRuns segments are remembered for that.
	maxRuns = 1024

	// Who has read aheadAfter of an object in a row gets the next bytes fetched
	// before they are asked for, at most aheadBytes and a quarter of what is
	// kept. Reads of one sequence may come a little out of order, as those of a
	// kernel that itself reads ahead do. maxSequences objects are remembered.
	aheadAfter   = 2 << 20
	aheadBytes   = 24 << 20
	aheadJump    = 4 << 20
	maxSequences = 256
)

// Random reads parts of objects in any order. It fetches single blobs, straight
// from the holder of the shard in which they are, and keeps the last ones. What
// a range cannot give, because its holder is away or wrong, comes from the whole
// segment. Segments that it fetches again it keeps on disk, up to 2 GiB; when
// they are more it fetches single blobs only. It is safe for concurrent use.
type Random struct {
	r     *Reader
	limit int
	slots chan struct{}

	mu        sync.Mutex
	blobs     map[[32]byte]*list.Element // of *keptBlob, in use
	use       list.List                  // latest first
	bytes     int                        // of all that is kept
	runs      map[uint32]*run
	long      bool                   // somebody reads whole segments in a row
	sequences map[[32]byte]*sequence // by object
}

// sequence is how an object was read lately.
type sequence struct {
	next  uint64 // where the reader is
	read  uint64 // bytes in a row
	ahead uint64 // what lies before this was sent for
	busy  bool   // somebody is sending for the next bytes
}

// keptBlob is a blob that is kept, or on its way.
type keptBlob struct {
	h     [32]byte
	whole bool          // its whole segment is worth fetching
	ready chan struct{} // closed when the rest is there
	plain []byte
	err   error

	parse    sync.Once
	children []Ref    // of a list
	ends     []uint64 // where each child ends
	listErr  error
}

// run is how a segment was read lately.
type run struct {
	end   uint32 // of the last blob
	count int    // blobs in a row
	bytes int    // of those
	whole bool   // it was worth fetching whole
}

// NewRandom returns a Random that keeps about limit bytes of blobs; 0 means
// DefaultRandomBytes. Its fetches end with ctx. The caller closes it.
func (v *Vault) NewRandom(ctx context.Context, limit int) (*Random, error) {
	reader, err := v.NewReader(ctx)
	if err != nil {
		return nil, err
	}
	reader.random, reader.scratch.most = true, randomScratchMost
	if limit == 0 {
		limit = DefaultRandomBytes
	}
	return &Random{
		r: reader, limit: limit, slots: make(chan struct{}, rangesAtOnce),
		blobs: map[[32]byte]*list.Element{}, runs: map[uint32]*run{}, sequences: map[[32]byte]*sequence{},
	}, nil
}

// Close ends all fetches and frees the memory.
func (r *Random) Close() { r.r.Close() }

// Fetched returns how many bytes of sealed blobs and of segments were asked of
// holders so far.
func (r *Random) Fetched() uint64 { return r.r.fetched.Load() }

// ReadAt reads len(p) bytes of an object from off on, as io.ReaderAt does. For
// who reads on and on it fetches ahead.
func (r *Random) ReadAt(ctx context.Context, ref Ref, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("offset %d is before the object", off)
	}
	if ref.Depth > 0 { // else it is one blob
		r.readAhead(ref, uint64(off), uint64(len(p)))
	}
	for n < len(p) {
		at := uint64(off) + uint64(n)
		if at >= ref.Size {
			return n, io.EOF
		}
		leaf, start, err := r.leafAt(ctx, ref, at)
		if err != nil {
			return n, err
		}
		b, err := r.blob(ctx, leaf)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], b.plain[at-start:])
	}
	return n, nil
}

// readAhead notes a read and sends for what comes next.
func (r *Random) readAhead(ref Ref, off, length uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sequences[ref.Hash]
	if s == nil {
		if len(r.sequences) >= maxSequences {
			clear(r.sequences)
		}
		s = &sequence{}
		r.sequences[ref.Hash] = s
	}
	if off > s.next+aheadJump || off+aheadJump < s.next {
		s.next, s.read, s.ahead = off, 0, 0
	}
	s.next, s.read = max(s.next, off+length), s.read+length
	window := min(aheadBytes, uint64(r.limit)/4)
	from, to := max(s.ahead, s.next), min(s.next+window, ref.Size)
	if s.busy || s.read < aheadAfter || from >= to {
		return
	}
	s.busy, s.ahead = true, to
	r.r.wg.Go(func() {
		r.sendFor(ref, from, to)
		r.mu.Lock()
		defer r.mu.Unlock()
		s.busy = false
	})
}

// sendFor begins to fetch the blobs of a part of an object. A blob that cannot
// be had is no concern before it is read.
func (r *Random) sendFor(ref Ref, from, to uint64) {
	for from < to {
		leaf, start, err := r.leafAt(r.r.ctx, ref, from)
		if err != nil {
			return
		}
		r.claim(leaf.Hash)
		from = start + leaf.Size
	}
}

// WriteObject writes the whole object to w.
func (r *Random) WriteObject(ctx context.Context, w io.Writer, ref Ref) error {
	for at := uint64(0); at < ref.Size; {
		leaf, _, err := r.leafAt(ctx, ref, at)
		if err != nil {
			return err
		}
		b, err := r.blob(ctx, leaf)
		if err != nil {
			return err
		}
		if _, err := w.Write(b.plain); err != nil {
			return err
		}
		at += leaf.Size
	}
	return nil
}

// leafAt returns the blob of an object that holds the byte at at, and where in
// the object it starts.
func (r *Random) leafAt(ctx context.Context, ref Ref, at uint64) (leaf Ref, start uint64, err error) {
	for ref.Depth > 0 {
		b, err := r.blob(ctx, Ref{Hash: ref.Hash})
		if err != nil {
			return Ref{}, 0, err
		}
		b.parse.Do(func() { b.parseChildren(ref) })
		if b.listErr != nil {
			return Ref{}, 0, b.listErr
		}
		i := sort.Search(len(b.ends), func(i int) bool { return at-start < b.ends[i] })
		if i == len(b.ends) {
			return Ref{}, 0, fmt.Errorf("%w: list ends before byte %d", storage.ErrCorrupt, at)
		}
		ref = b.children[i]
		start += b.ends[i] - ref.Size
	}
	return ref, start, nil
}

func (b *keptBlob) parseChildren(ref Ref) {
	if b.children, b.listErr = parseList(b.plain, ref.Depth, ref.Size); b.listErr != nil {
		return
	}
	end := uint64(0)
	for _, child := range b.children {
		end += child.Size
		b.ends = append(b.ends, end)
	}
}

// blob returns a blob, waiting for it if need be. A size that is not zero is
// what it must have.
func (r *Random) blob(ctx context.Context, leaf Ref) (*keptBlob, error) {
	b := r.claim(leaf.Hash)
	select {
	case <-b.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b.err == nil && leaf.Size > 0 && uint64(len(b.plain)) != leaf.Size {
		return nil, fmt.Errorf("%w: blob of %d bytes, not %d", storage.ErrCorrupt, len(b.plain), leaf.Size)
	}
	return b, b.err
}

// claim returns the blob that is kept or on its way, else sends for it. Whether
// its whole segment is worth fetching is decided here, in the order of the
// claims.
func (r *Random) claim(h [32]byte) *keptBlob {
	if b := r.kept(h); b != nil {
		return b
	}
	at, err := r.r.locate(h)
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.keptLocked(h); b != nil {
		return b
	}
	b := &keptBlob{h: h, ready: make(chan struct{}), whole: err == nil && r.inARow(at) && !r.r.scratch.full()}
	r.blobs[h] = r.use.PushFront(b)
	r.r.wg.Go(func() { r.load(b) })
	return b
}

func (r *Random) kept(h [32]byte) *keptBlob {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keptLocked(h)
}

// keptLocked is kept; r.mu is held.
func (r *Random) keptLocked(h [32]byte) *keptBlob {
	e, ok := r.blobs[h]
	if !ok {
		return nil
	}
	r.use.MoveToFront(e)
	return e.Value.(*keptBlob)
}

// load fetches a blob. One that could not be had is not kept: the next read
// tries again.
func (r *Random) load(b *keptBlob) {
	defer close(b.ready)
	var plain []byte
	var err error
	select {
	case r.slots <- struct{}{}:
		plain, err = r.fetch(b)
		<-r.slots
	case <-r.r.ctx.Done():
		err = context.Cause(r.r.ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b.plain, b.err = plain, err // others look at it to make room
	if b.err != nil {
		r.use.Remove(r.blobs[b.h])
		delete(r.blobs, b.h)
		return
	}
	r.bytes += len(b.plain)
	for e := r.use.Back(); e != nil && r.bytes > r.limit; {
		old, before := e.Value.(*keptBlob), e.Prev()
		if old != b && old.plain != nil { // not on its way
			r.bytes -= len(old.plain)
			r.use.Remove(e)
			delete(r.blobs, old.h)
		}
		e = before
	}
}

// fetch returns the plaintext of a blob: by a range of its segment, whose bytes
// the encryption vouches for, or from the whole segment.
func (r *Random) fetch(b *keptBlob) ([]byte, error) {
	if !b.whole {
		if plain, _, err := r.r.rangeOf(nil, nil, b.h); err == nil || errors.Is(err, ErrMissing) {
			return plain, err
		}
	}
	return r.whole(b.h)
}

// whole returns a blob out of its segment, which is fetched unless it is there.
func (r *Random) whole(h [32]byte) ([]byte, error) {
	lease, err := r.r.lease(h, forLeases)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	plain, _, err := lease.Read(nil, nil)
	return plain, err
}

// inARow notes that a blob is read, and reports whether its whole segment is
// worth fetching, or is there; r.mu is held.
func (r *Random) inARow(at location) bool {
	s := r.runs[at.segment]
	fresh := s == nil
	if fresh {
		if len(r.runs) >= maxRuns {
			clear(r.runs)
		}
		s = &run{}
		r.runs[at.segment] = s
	}
	if distance := int64(at.offset) - int64(s.end); s.count > 0 && -near < distance && distance < near {
		s.count++
		s.bytes += int(at.sealed)
	} else {
		s.count, s.bytes, s.whole = 1, int(at.sealed), fresh && r.long
	}
	s.end = at.offset + at.sealed
	s.whole = s.whole || s.count > wholeAfter && s.bytes >= wholeAfterBytes || s.count > wholeAfterSmall
	r.long = s.whole || r.long && s.count > 1
	return s.whole
}
