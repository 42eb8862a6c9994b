package contents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/segments"
	"gotong/tasks"
)

// Put stores size bytes of r, 1 to tasks.MaxOutputBytes, whose hash is id. The
// error is ErrNowhere when no other site takes any, tasks.ErrContent when r has
// other bytes, storage.ErrQuota when the grant, or what the owner may have,
// does not allow as much; or why too few peers took them. What was stored by
// then expires.
func (c *Contents) Put(ctx context.Context, job Job, id tasks.ContentID, size int64, r io.Reader) (tasks.Stored, error) {
	grant, expires, err := job.grant()
	if err != nil {
		return tasks.Stored{}, fmt.Errorf("store content %s: %w", id.Short(), err)
	}
	if size < 1 || size > tasks.MaxOutputBytes {
		return tasks.Stored{}, fmt.Errorf("store content %s: %w: %d bytes", id.Short(), tasks.ErrInvalid, size)
	}
	p := &putting{
		contents: c, grant: grant, expires: expires, size: size,
		sealer: seal.NewJobContent(job.Key, job.ID, id, size),
		puts:   make([]segments.Put, (size+tasks.StoredPieceBytes-1)/tasks.StoredPieceBytes),
	}
	if err := p.run(ctx, id, r); err != nil {
		return tasks.Stored{}, fmt.Errorf("store content %s: %w", id.Short(), err)
	}
	return p.stored(), nil
}

// putting is one content on its way to its holders.
type putting struct {
	contents *Contents
	grant    storage.SignedJobGrant
	expires  time.Time
	size     int64
	sealer   seal.JobContent
	puts     []segments.Put // by piece
}

// run reads pieces one after the other and stores some at once.
func (p *putting) run(ctx context.Context, id tasks.ContentID, r io.Reader) error {
	group, ctx := errgroup.WithContext(ctx)
	buffers := make(chan *buffer, putsAtOnce)
	for range putsAtOnce {
		buffers <- &buffer{}
	}
	err := p.read(ctx, group, buffers, id, r)
	if stored := group.Wait(); stored != nil {
		return stored // what ended reading, if anything did
	}
	return err
}

// buffer is the memory of one piece, plain and sealed.
type buffer struct{ plain, sealed []byte }

func (b *buffer) sized(n int) *buffer {
	b.plain = slices.Grow(b.plain[:0], n)[:n]
	b.sealed = slices.Grow(b.sealed[:0], n+seal.Overhead)
	return b
}

func (p *putting) read(ctx context.Context, group *errgroup.Group, buffers chan *buffer, id tasks.ContentID, r io.Reader) error {
	hash := blake3.New()
	left := p.size
	for piece := range p.puts {
		var b *buffer
		select {
		case b = <-buffers:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b = b.sized(int(min(left, tasks.StoredPieceBytes)))
		if _, err := io.ReadFull(r, b.plain); err != nil {
			return shortened(err)
		}
		hash.Write(b.plain)
		left -= int64(len(b.plain))
		group.Go(func() (err error) {
			defer func() { buffers <- b }()
			p.puts[piece], err = p.put(ctx, p.sealer.Seal(b.sealed, piece, b.plain))
			return err
		})
	}
	if n, _ := io.ReadFull(r, make([]byte, 1)); n != 0 || hash.Sum256() != id {
		return tasks.ErrContent
	}
	return nil
}

// shortened says of a source that ends too early that it has other bytes.
func shortened(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", tasks.ErrContent)
	}
	return err
}

// put stores one sealed piece. Peers that failed a moment ago may be back in the
// next.
func (p *putting) put(ctx context.Context, sealed []byte) (put segments.Put, err error) {
	for try := 1; ; try++ {
		put, err = p.contents.segments.PutForJob(ctx, sealed, p.grant, p.expires)
		switch {
		case err == nil, ctx.Err() != nil, try == pieceTries, nobodyWill(err):
			return put, nowhere(err)
		}
		timer := time.NewTimer(retryAfter)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return put, context.Cause(ctx)
		}
	}
}

// nobodyWill reports whether trying again is of no use.
func nobodyWill(err error) bool {
	_, tooFew := errors.AsType[*segments.TooFewError](err)
	return !tooFew || errors.Is(err, storage.ErrQuota)
}

// nowhere tells that there is no other site from that some failed.
func nowhere(err error) error {
	if _, some := errors.AsType[*segments.TooFewError](err); err != nil && !some && errors.Is(err, storage.ErrTooFewPeers) {
		return fmt.Errorf("%w: %w", ErrNowhere, err)
	}
	return err
}

// stored names the segments and some of their holders, those of most shards
// first.
func (p *putting) stored() tasks.Stored {
	out := tasks.Stored{Size: p.size}
	shards := map[grid.PeerID]int{}
	for _, put := range p.puts {
		out.Segments = append(out.Segments, put.ID)
		for _, h := range put.Holders {
			shards[h.Peer]++
		}
	}
	for peer := range shards {
		out.Holders = append(out.Holders, peer)
	}
	slices.SortFunc(out.Holders, func(a, b grid.PeerID) int {
		if shards[a] != shards[b] {
			return shards[b] - shards[a]
		}
		return a.Compare(b)
	})
	out.Holders = out.Holders[:min(len(out.Holders), holdersNamed)]
	return out
}
