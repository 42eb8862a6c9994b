package segments

import (
	"context"
	"errors"

	"gotong/storage"
)

// send streams one shard of the segment to the peer of the attempt.
func (s *Segments) send(a *attempt, segment *encoded, holders []storage.Holder) error {
	store, err := s.cfg.Holders.Shards(a.peer)
	if err != nil {
		return err
	}
	w, err := store.CreateShard(a.ctx, segment.header, a.shard, holders)
	if errors.Is(err, storage.ErrExists) {
		return nil
	}
	if err != nil {
		return cause(a.ctx, err)
	}
	defer w.Abort()
	a.beat(s.cfg.IdleTimeout)
	if w, ok := w.(progressWriter); ok {
		w.OnProgress(a.alive)
	}
	if err := s.sendBytes(a, w, segment); err != nil {
		return cause(a.ctx, err)
	}
	a.beat(s.cfg.CommitTimeout)
	if err := w.Commit(); err != nil {
		return cause(a.ctx, err)
	}
	return nil
}

// sendPiece is how much is handed to a writer at once; each piece is a sign of
// life.
const sendPiece = 256 << 10

// sharedWriter is a writer that can take bytes without copying them, such as
// that of another peer: the bytes stay unchanged until it releases them.
type sharedWriter interface {
	WriteShared(p []byte, release func()) (int, error)
}

// progressWriter is a writer that tells, from any goroutine, that bytes move
// while a call of it waits.
type progressWriter interface{ OnProgress(func()) }

func (s *Segments) sendBytes(a *attempt, w storage.ShardWriter, segment *encoded) error {
	shared, ok := w.(sharedWriter)
	data := segment.shards[a.shard]
	for len(data) > 0 {
		n := min(sendPiece, len(data))
		var err error
		if ok {
			segment.lease.hold()
			_, err = shared.WriteShared(data[:n], segment.lease.release)
		} else {
			_, err = w.Write(data[:n])
		}
		if err != nil {
			return err
		}
		a.beat(s.cfg.IdleTimeout)
		data = data[n:]
	}
	return nil
}

// cause returns why ctx ended, if it did and that is what err is about, else
// err.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return context.Cause(ctx)
	}
	return err
}
