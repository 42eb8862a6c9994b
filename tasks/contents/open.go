package contents

import (
	"context"
	"errors"
	"fmt"
	"io"

	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/segments"
	"gotong/tasks"
)

// errClosed ends what a reader still fetches.
var errClosed = errors.New("reader was closed")

// Open reads a content that is stored. Pieces are fetched as they are read, some
// ahead, each from several holders. Whoever reads to the end has the bytes whose
// hash is id: else it ends with an error instead of io.EOF, which is
// tasks.ErrContent, storage.ErrCorrupt, or what kept pieces from being fetched.
// ctx governs the reader too. The caller closes.
func (c *Contents) Open(ctx context.Context, job Job, id tasks.ContentID, s tasks.Stored) (io.ReadCloser, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("fetch content %s: %w", id.Short(), err)
	}
	if job.Key.IsZero() {
		return nil, fmt.Errorf("fetch content %s: %w: the job has no key", id.Short(), tasks.ErrInvalid)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	known, err := c.segments.Locate(ctx, s.Segments, s.Holders)
	if err != nil {
		cancel(err)
		return nil, fmt.Errorf("fetch content %s: %w", id.Short(), err)
	}
	return &reader{
		contents: c, ctx: ctx, cancel: cancel, id: id, stored: s, known: known,
		opener: seal.NewJobContent(job.Key, job.ID, id, s.Size), hash: blake3.New(),
	}, nil
}

// reader reads a content. One goroutine uses it.
type reader struct {
	contents *Contents
	ctx      context.Context
	cancel   context.CancelCauseFunc
	id       tasks.ContentID
	stored   tasks.Stored
	known    map[storage.SegmentID][]storage.Holder
	opener   seal.JobContent
	hash     *blake3.Hasher

	begun   int // pieces whose fetch was begun
	taken   int // pieces that were taken over
	fetches []*fetch
	last    *fetch // whose data rest is of
	rest    []byte
	free    [][]byte // memory of pieces that were read
	err     error    // that ends it, io.EOF too
}

// fetch is a piece on its way here.
type fetch struct {
	done   chan struct{}
	ahead  bool   // holds a token of Contents.ahead
	buffer []byte // memory of the piece
	data   []byte // in it
	err    error
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if err := r.next(); err != nil {
			if r.err = err; !errors.Is(err, io.EOF) {
				r.err = fmt.Errorf("fetch content %s: %w", r.id.Short(), err)
			}
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next takes over the next piece; io.EOF after the last, when all is well.
func (r *reader) next() error {
	if r.last != nil {
		r.free, r.last = append(r.free, r.last.buffer), nil
	}
	if r.taken == len(r.stored.Segments) {
		if r.hash.Sum256() != r.id {
			return tasks.ErrContent
		}
		return io.EOF
	}
	r.begin()
	f := r.fetches[0]
	select {
	case <-f.done:
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	r.fetches = r.fetches[1:]
	r.release(f)
	r.taken++
	if f.err != nil {
		return f.err
	}
	r.hash.Write(f.data)
	r.last, r.rest = f, f.data
	r.begin()
	return nil
}

// begin begins fetches: always that of the next piece, others while there is
// room.
func (r *reader) begin() {
	for r.begun < len(r.stored.Segments) && len(r.fetches) < fetchesAtOnce {
		f := &fetch{done: make(chan struct{}), ahead: len(r.fetches) > 0}
		if f.ahead {
			select {
			case r.contents.ahead <- struct{}{}:
			default:
				return
			}
		}
		if last := len(r.free) - 1; last >= 0 {
			f.buffer, r.free = r.free[last], r.free[:last]
		}
		piece := r.begun
		r.begun++
		r.fetches = append(r.fetches, f)
		go func() {
			defer close(f.done)
			f.err = r.fetch(f, piece)
		}()
	}
}

func (r *reader) release(f *fetch) {
	if f.ahead {
		<-r.contents.ahead
	}
}

// fetch gets and opens one piece.
func (r *reader) fetch(f *fetch, piece int) (err error) {
	id := r.stored.Segments[piece]
	f.buffer, err = r.contents.segments.Get(r.ctx, id, segments.Hint{Holders: r.known[id], Buffer: f.buffer})
	if err != nil {
		return err
	}
	if f.data, err = r.opener.Open(piece, f.buffer); err != nil {
		return err
	}
	if want := min(tasks.StoredPieceBytes, r.stored.Size-int64(piece)*tasks.StoredPieceBytes); int64(len(f.data)) != want {
		return fmt.Errorf("%w: piece of %d bytes", tasks.ErrContent, len(f.data))
	}
	return nil
}

// Close ends fetches that still run and waits for them.
func (r *reader) Close() error {
	r.cancel(errClosed)
	for _, f := range r.fetches {
		<-f.done
		r.release(f)
	}
	r.fetches, r.last, r.rest, r.free = nil, nil, nil, nil
	if r.err == nil {
		r.err = errClosed
	}
	return nil
}
