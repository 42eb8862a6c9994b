package shardrpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// Put implements shardsv1.ShardsServer.
func (s *Server) Put(stream shardsv1.Shards_PutServer) error {
	return s.call(stream.Context(), true, func(ctx context.Context, _ caller, p *pulse) error {
		return s.receive(ctx, stream, p)
	})
}

// receive takes one shard from stream.
func (s *Server) receive(ctx context.Context, stream shardsv1.Shards_PutServer, p *pulse) error {
	first := new(shardsv1.PutRequest)
	in := &frame{msg: first}
	defer in.free()
	if err := p.wait(func() error { return stream.RecvMsg(in) }); err != nil {
		return early(err)
	}
	header, err := checkStart(first, in.payload)
	if err != nil {
		return err
	}
	holders, err := holdersFromWire(first.Start.Holders)
	if err != nil {
		return err
	}
	writer, err := s.cfg.Store.CreateShard(ctx, header, int(first.Start.Index), holders)
	if err != nil {
		return err
	}
	defer writer.Abort()
	if err := p.wait(func() error { return stream.SendHeader(metadata.MD{}) }); err != nil {
		return err
	}
	size := uint64(header.ShardBytes)
	if err := receiveBytes(stream, p, writer, size); err != nil {
		return err
	}
	if err := writer.Commit(); err != nil {
		return err
	}
	return p.wait(func() error { return stream.Send(&shardsv1.PutResponse{Received: size, Durable: true}) })
}

func checkStart(first *shardsv1.PutRequest, payload mem.BufferSlice) (storage.SignedHeader, error) {
	start := first.GetStart()
	if start == nil || payload.Len() > 0 || first.Finished || first.Offset != 0 {
		return storage.SignedHeader{}, violation("a put begins with the name of the shard alone")
	}
	header, err := storage.ParseSignedHeader(start.Header)
	if err != nil {
		return storage.SignedHeader{}, err
	}
	if uint64(start.Index) >= uint64(header.Redundancy.N) {
		return storage.SignedHeader{}, violation("shard %d of %d", start.Index, header.Redundancy.N)
	}
	return header, nil
}

// progressEvery is how often a Put tells how far it has come, so that a sender
// whose bytes wait in buffers knows a slow receiver from a dead one.
const progressEvery = 5 * time.Second

// receiveBytes writes the bytes of a shard as they come, without copying, and
// returns when all size of them came and the stream says that it is finished.
func receiveBytes(stream shardsv1.Shards_PutServer, p *pulse, w io.Writer, size uint64) error {
	msg := new(shardsv1.PutRequest)
	in := &frame{msg: msg}
	defer in.free()
	told := time.Now()
	for written := uint64(0); !msg.Finished; {
		if err := p.wait(func() error { return stream.RecvMsg(in) }); err != nil {
			return early(err)
		}
		n := uint64(in.payload.Len())
		switch {
		case msg.Start != nil:
			return violation("the shard was named twice")
		case msg.Offset != written:
			return violation("bytes at offset %d, expected %d", msg.Offset, written)
		case n == 0 || n > FrameBytes || n > size-written:
			return violation("%d bytes at offset %d of %d", n, written, size)
		case msg.Finished != (written+n == size):
			return violation("finished is %t after %d of %d bytes", msg.Finished, written+n, size)
		}
		for _, b := range in.payload {
			if _, err := w.Write(b.ReadOnlyData()); err != nil {
				return err
			}
		}
		written += n
		if time.Since(told) < progressEvery {
			continue
		}
		told = time.Now()
		if err := p.wait(func() error { return stream.Send(&shardsv1.PutResponse{Received: written}) }); err != nil {
			return err
		}
	}
	err := p.wait(func() error { return stream.RecvMsg(in) })
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = violation("bytes after the end")
	}
	return err
}

// early names the end of a stream that came before its time.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return violation("the stream ended early")
	}
	return err
}

// Get implements shardsv1.ShardsServer.
func (s *Server) Get(req *shardsv1.GetRequest, stream shardsv1.Shards_GetServer) error {
	return s.call(stream.Context(), true, func(ctx context.Context, _ caller, p *pulse) error {
		id, err := shardFromWire(req.GetSegment(), req.GetIndex())
		if err != nil {
			return err
		}
		if req.Offset > storage.MaxShardBytes {
			return violation("offset %d", req.Offset)
		}
		reader, err := s.cfg.Store.OpenShard(ctx, id, int64(req.Offset), req.Length)
		if err != nil {
			return err
		}
		defer reader.Close()
		length := req.Length
		if length < 0 {
			length = int64(reader.Header().ShardBytes) - int64(req.Offset)
		}
		return sendRange(stream, p, reader, req.Offset, uint64(length))
	})
}

// firstFrameBytes is the size of the first frame of a Get. Each one is at most
// twice as long as the one before, so that on a slow line the receiver soon
// knows how long to wait for the next.
const firstFrameBytes = 16 << 10

// sendRange sends what the reader is of and then its bytes, each frame read
// into a buffer that goes to the connection as it is. The last frame goes out
// only after the reader ended well, because a store verifies on the way.
func sendRange(stream shardsv1.Shards_GetServer, p *pulse, reader storage.ShardReader, offset, length uint64) error {
	start := &shardsv1.GetStart{
		Header:  reader.Header().Raw,
		Holders: holdersToWire(reader.Holders()),
		Length:  length,
	}
	if err := p.wait(func() error {
		return stream.SendMsg(&frame{msg: &shardsv1.GetResponse{Start: start, Offset: offset}})
	}); err != nil {
		return err
	}
	most := uint64(firstFrameBytes)
	for left := length; ; {
		size := min(left, most)
		most = min(2*most, FrameBytes)
		buf := frames.Get(int(size))
		err := readFull(reader, *buf, size == left)
		if err != nil {
			frames.Put(buf)
			return err
		}
		out := &frame{
			msg:     &shardsv1.GetResponse{Offset: offset, Finished: size == left},
			payload: mem.BufferSlice{mem.NewBuffer(buf, &frames)},
		}
		err = p.wait(func() error { return stream.SendMsg(out) })
		out.free()
		if err != nil || size == left {
			return err
		}
		offset, left = offset+size, left-size
	}
}

// readFull fills buf; with last it also demands that the reader then ends well.
func readFull(r io.Reader, buf []byte, last bool) error {
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return storage.ErrCorrupt
		}
		return err
	}
	if !last {
		return nil
	}
	var more [1]byte
	switch n, err := io.ReadFull(r, more[:]); {
	case n > 0:
		return storage.ErrCorrupt
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}
