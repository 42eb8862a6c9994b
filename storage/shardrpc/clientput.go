package shardrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// maxAnswers bounds the answers that are read to find the status of a stream.
const maxAnswers = 10_000

// errAborted ends a stream whose writer was aborted.
var errAborted = errors.New("aborted")

// CreateShard implements storage.ShardCreator. It returns once the peer is
// willing to take the shard, so a refusal costs no transfer.
func (c *Client) CreateShard(ctx context.Context, header storage.SignedHeader, index int, holders []storage.Holder) (storage.ShardWriter, error) {
	id := storage.ShardID{Segment: header.ID, Index: index}
	ctx, p := withPulse(ctx, c.cfg.IdleTimeout)
	w := &shardWriter{client: c, ctx: ctx, pulse: p, id: id, size: uint64(header.ShardBytes)}
	start := &shardsv1.PutStart{Header: header.Raw, Index: uint32(index), Holders: holdersToWire(holders)}
	if err := p.wait(func() error { return w.open(c.rpc, start) }); err != nil {
		err = fromStatus(ctx, err)
		p.stop(errAborted)
		return nil, c.fail("put", id, err)
	}
	return w, nil
}

// shardWriter is one Put stream.
type shardWriter struct {
	client   *Client
	ctx      context.Context
	pulse    *pulse
	stream   shardsv1.Shards_PutClient
	id       storage.ShardID
	size     uint64
	written  uint64
	progress atomic.Pointer[func()] // nil: nobody wants to know
	err      error                  // the first one; all later calls return it
}

// open starts the stream and waits until the server accepts the shard.
func (w *shardWriter) open(rpc shardsv1.ShardsClient, start *shardsv1.PutStart) error {
	stream, err := rpc.Put(w.ctx, grpc.ForceCodecV2(Codec()))
	if err != nil {
		return err
	}
	w.stream = stream
	if err := stream.SendMsg(&frame{msg: &shardsv1.PutRequest{Start: start}}); err != nil {
		return w.verdict(err)
	}
	accepted, err := stream.Header()
	if err != nil || accepted == nil {
		return w.verdict(err)
	}
	return nil
}

// verdict returns the status of a stream that ended before its time: a failed
// send or an absent header does not say why.
func (w *shardWriter) verdict(sendErr error) error {
	for range maxAnswers {
		err := w.stream.RecvMsg(new(shardsv1.PutResponse))
		if errors.Is(err, io.EOF) {
			return violation("the stream ended early (%v)", sendErr)
		}
		if err != nil {
			return err
		}
	}
	return violation("more than %d answers", maxAnswers)
}

// Write implements io.Writer by copying p into frames, as that interface
// demands. WriteShared does not copy.
func (w *shardWriter) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n := min(len(p)-written, FrameBytes)
		buf := frames.Get(n)
		copy(*buf, p[written:])
		if err := w.send(mem.BufferSlice{mem.NewBuffer(buf, &frames)}); err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// WriteShared is Write without a copy: p goes to the connection as it is. The
// caller leaves p unchanged until release was called; that may happen before
// or after WriteShared returns, at most once, and never when the connection
// breaks with parts of p in its queue, so p is then left to the garbage
// collector.
func (w *shardWriter) WriteShared(p []byte, release func()) (int, error) {
	if mem.IsBelowBufferPoolingThreshold(len(p)) {
		n, err := w.Write(p)
		release()
		return n, err
	}
	pieces := lend(p, w.moved, release)
	for at := 0; at < len(p); at += FrameBytes {
		n := min(len(pieces), FrameBytes/pieceBytes)
		if err := w.send(pieces[:n]); err != nil {
			pieces[n:].Free()
			return at, err
		}
		pieces = pieces[n:]
	}
	return len(p), nil
}

// moved says that bytes went to the connection or arrived. gRPC calls it too.
func (w *shardWriter) moved() {
	w.pulse.touch()
	if f := w.progress.Load(); f != nil {
		(*f)()
	}
}

// send sends one frame and frees it. The frame that completes the shard says
// so.
func (w *shardWriter) send(payload mem.BufferSlice) error {
	defer payload.Free()
	n := uint64(payload.Len())
	switch {
	case w.err != nil:
		return w.err
	case w.written+n > w.size:
		return w.end(fmt.Errorf("%w: more than the %d bytes of the shard", storage.ErrCorrupt, w.size))
	}
	out := &frame{
		msg:     &shardsv1.PutRequest{Offset: w.written, Finished: w.written+n == w.size},
		payload: payload,
	}
	err := w.pulse.wait(func() error {
		if err := w.stream.SendMsg(out); err != nil {
			return w.verdict(err)
		}
		return nil
	})
	if err != nil {
		return w.end(err)
	}
	w.written += n
	return nil
}

// end ends the stream with err and remembers it.
func (w *shardWriter) end(err error) error {
	w.err = w.client.fail("put", w.id, fromStatus(w.ctx, err))
	w.pulse.stop(errAborted)
	return w.err
}

// Commit implements storage.ShardWriter.
func (w *shardWriter) Commit() error {
	if w.err != nil {
		return w.err
	}
	if w.written != w.size {
		return w.end(fmt.Errorf("%w: %d of the %d bytes of the shard", storage.ErrCorrupt, w.written, w.size))
	}
	if err := w.awaitDurable(); err != nil {
		return w.end(err)
	}
	w.err = w.client.fail("put", w.id, errors.New("committed already"))
	w.pulse.stop(nil)
	return nil
}

// awaitDurable waits for the last answer. What still waits in buffers may take
// long on a slow line: each answer that tells of progress allows more time.
func (w *shardWriter) awaitDurable() error {
	if err := w.stream.CloseSend(); err != nil {
		return err
	}
	answer := new(shardsv1.PutResponse)
	for received := uint64(0); ; received = answer.Received {
		err := w.pulse.waitFor(w.client.cfg.CommitTimeout, func() error { return w.stream.RecvMsg(answer) })
		switch {
		case err != nil:
			return early(err)
		case answer.Durable && answer.Received == w.size:
			return nil
		case answer.Durable || answer.Received <= received || answer.Received > w.size:
			return violation("%d bytes received of %d, durable is %t", answer.Received, w.size, answer.Durable)
		}
		w.moved()
	}
}

// OnProgress has f called whenever bytes went to the connection, or arrived
// where Commit waits for them. f may be called from any goroutine, and once or
// twice after the writer ended.
func (w *shardWriter) OnProgress(f func()) { w.progress.Store(&f) }

// Abort implements storage.ShardWriter.
func (w *shardWriter) Abort() {
	if w.err == nil {
		w.end(errAborted)
	}
}
