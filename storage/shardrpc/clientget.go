package shardrpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// OpenShard implements storage.ShardOpener. The reader implements io.WriterTo,
// which passes the bytes on as they came, without copying them.
func (c *Client) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	ctx, p := withPulse(ctx, c.cfg.IdleTimeout)
	r := &shardReader{client: c, ctx: ctx, pulse: p, id: id, in: frame{msg: new(shardsv1.GetResponse)}}
	if err := r.open(off, n); err != nil {
		err = c.fail("get", id, err)
		p.stop(err)
		return nil, err
	}
	return r, nil
}

// shardReader is one Get stream.
type shardReader struct {
	client  *Client
	ctx     context.Context
	pulse   *pulse
	stream  shardsv1.Shards_GetClient
	id      storage.ShardID
	header  storage.SignedHeader
	holders []storage.Holder

	in     frame  // the frame being read
	skip   int    // bytes of its first buffer that were read
	offset uint64 // of the next frame
	left   uint64 // bytes that the peer still has to send
	err    error  // set once: io.EOF or what went wrong
}

// open asks for the range and reads what it will be of.
func (r *shardReader) open(off, n int64) error {
	if off < 0 {
		return violation("offset %d", off)
	}
	req := &shardsv1.GetRequest{Segment: r.id.Segment[:], Index: uint32(r.id.Index), Offset: uint64(off), Length: n}
	err := r.pulse.wait(func() (err error) {
		r.stream, err = r.client.rpc.Get(r.ctx, req, grpc.ForceCodecV2(Codec()))
		if err != nil {
			return err
		}
		return r.stream.RecvMsg(&r.in)
	})
	if err != nil {
		return fromStatus(r.ctx, early(err))
	}
	r.offset = uint64(off)
	return r.checkStart(n)
}

// checkStart verifies that the answer is about the shard and range asked for.
func (r *shardReader) checkStart(n int64) error {
	msg := r.in.msg.(*shardsv1.GetResponse)
	start := msg.GetStart()
	if start == nil || msg.Finished || r.in.payload.Len() > 0 {
		return violation("an answer begins with the name of the shard alone")
	}
	header, err := storage.ParseKnownHeader(start.Header, r.id.Segment)
	if err != nil {
		return err
	}
	if r.holders, err = holdersFromWire(start.Holders); err != nil {
		return err
	}
	r.header, r.left = header, start.Length
	want := uint64(n)
	if n < 0 {
		want = uint64(header.ShardBytes) - r.offset
	}
	if r.offset > uint64(header.ShardBytes) || start.Length != want {
		return violation("%d bytes offered, %d asked", start.Length, want)
	}
	return nil
}

// Header implements storage.ShardReader. The id of the segment vouches for it;
// its signature was verified by the holder only.
func (r *shardReader) Header() storage.SignedHeader { return r.header }

// Holders implements storage.ShardReader.
func (r *shardReader) Holders() []storage.Holder { return r.holders }

// Read implements io.Reader.
func (r *shardReader) Read(p []byte) (int, error) {
	for r.err == nil && len(r.in.payload) == 0 {
		r.next()
	}
	n := 0
	for n < len(p) && len(r.in.payload) > 0 {
		buffer := r.in.payload[0]
		m := copy(p[n:], buffer.ReadOnlyData()[r.skip:])
		n += m
		if r.skip += m; r.skip == buffer.Len() {
			buffer.Free()
			r.in.payload, r.skip = r.in.payload[1:], 0
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *shardReader) WriteTo(w io.Writer) (written int64, err error) {
	for {
		for len(r.in.payload) > 0 {
			buffer := r.in.payload[0]
			n, err := w.Write(buffer.ReadOnlyData()[r.skip:])
			written += int64(n)
			if err != nil {
				r.skip += n
				return written, err
			}
			buffer.Free()
			r.in.payload, r.skip = r.in.payload[1:], 0
		}
		if errors.Is(r.err, io.EOF) {
			return written, nil
		}
		if r.err != nil {
			return written, r.err
		}
		r.next()
	}
}

// next receives one frame, or the end.
func (r *shardReader) next() {
	msg := r.in.msg.(*shardsv1.GetResponse)
	finished := msg.Finished
	err := r.pulse.wait(func() error { return r.stream.RecvMsg(&r.in) })
	n := uint64(r.in.payload.Len())
	switch {
	case finished && errors.Is(err, io.EOF):
		r.err = io.EOF
		return
	case err != nil:
		err = fromStatus(r.ctx, early(err))
	case finished:
		err = violation("bytes after the end")
	case msg.Start != nil:
		err = violation("the shard was named twice")
	case msg.Offset != r.offset:
		err = violation("bytes at offset %d, expected %d", msg.Offset, r.offset)
	case n > FrameBytes || n > r.left || n == 0 && !msg.Finished:
		err = violation("%d bytes where %d are left", n, r.left)
	case msg.Finished != (n == r.left):
		err = violation("finished is %t with %d bytes left", msg.Finished, r.left-n)
	}
	if err != nil {
		r.in.free()
		r.err = r.client.fail("get", r.id, err)
		return
	}
	r.offset, r.left = r.offset+n, r.left-n
}

// Close implements io.Closer; it ends the stream when there is more.
func (r *shardReader) Close() error {
	r.in.free()
	if r.err == nil {
		r.err = r.client.fail("get", r.id, errors.New("closed"))
	}
	r.pulse.stop(r.err)
	return nil
}
