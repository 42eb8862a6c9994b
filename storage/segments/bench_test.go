package segments_test

import (
	"bytes"
	"context"
	"iter"
	"sync"
	"testing"

	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/segments"
)

// lastShards keeps the latest shard only, in memory that it uses again, and
// verifies it as a holder does. What it costs beside that is one copy, so that
// a benchmark shows the way there.
type lastShards struct {
	storage.RemoteShards
	mu   sync.Mutex
	last lastShard
}

type lastShard struct {
	id     storage.ShardID
	header storage.SignedHeader
	data   []byte
}

func (l *lastShards) CreateShard(_ context.Context, header storage.SignedHeader, index int, _ []storage.Holder) (storage.ShardWriter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shard := lastShard{storage.ShardID{Segment: header.ID, Index: index}, header, l.last.data[:0]}
	l.last = lastShard{}
	return &lastWriter{l, shard, blake3.New()}, nil
}

type lastWriter struct {
	store *lastShards
	shard lastShard
	hash  *blake3.Hasher
}

func (w *lastWriter) Write(p []byte) (int, error) {
	w.shard.data = append(w.shard.data, p...)
	return w.hash.Write(p)
}

func (w *lastWriter) Commit() error {
	if [32]byte(w.hash.Sum(nil)) != w.shard.header.Roots[w.shard.id.Index] {
		return storage.ErrCorrupt
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.last = w.shard
	return nil
}

func (w *lastWriter) Abort() {}

func (l *lastShards) OpenShard(_ context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shard := l.last
	if shard.id != id {
		return nil, storage.ErrNotFound
	}
	if n < 0 {
		n = int64(len(shard.data)) - off
	}
	return lastReader{bytes.NewReader(shard.data[off : off+n]), shard.header}, nil
}

type lastReader struct {
	*bytes.Reader
	header storage.SignedHeader
}

func (r lastReader) Header() storage.SignedHeader { return r.header }
func (lastReader) Holders() []storage.Holder      { return nil }
func (lastReader) Close() error                   { return nil }

func (l *lastShards) List(context.Context, storage.VaultID) iter.Seq2[storage.ShardID, error] {
	return func(func(storage.ShardID, error) bool) {}
}

// newBenchFriends returns six friends with lastShards as stores.
func newBenchFriends(b *testing.B) *friends {
	f := newFriends(b, 6)
	for _, friend := range f.list {
		friend.store = &lastShards{RemoteShards: friend.memory}
	}
	return f
}

func benchmarks(b *testing.B, run func(b *testing.B, f *friends)) {
	b.Run("memory", func(b *testing.B) { run(b, newBenchFriends(b)) })
	b.Run("grpc", func(b *testing.B) {
		f := newBenchFriends(b)
		f.overGRPC(b)
		run(b, f)
	})
}

func BenchmarkPut(b *testing.B) {
	benchmarks(b, func(b *testing.B, f *friends) {
		data := randomBytes(storage.MaxSegmentBytes)
		s := f.open(fourOfSix)
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			data[0], data[1] = byte(i), byte(i>>8) // else the holders have it already
			f.mustPut(s, data)
		}
	})
}

func benchmarkGet(b *testing.B, lost int) {
	benchmarks(b, func(b *testing.B, f *friends) {
		data := randomBytes(storage.MaxSegmentBytes)
		s := f.open(fourOfSix)
		put := f.mustPut(s, data)
		for _, h := range put.Holders[:lost] {
			f.absent[h.Peer] = true
		}
		buffer := make([]byte, segments.BufferBytes)
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Get(b.Context(), put.ID, segments.Hint{Header: put.Header, Holders: put.Holders, Buffer: buffer}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B)         { benchmarkGet(b, 0) }
func BenchmarkGetDegraded(b *testing.B) { benchmarkGet(b, 2) }
