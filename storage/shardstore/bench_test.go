package shardstore_test

import (
	"fmt"
	"testing"

	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

const benchFrame = 256 << 10 // as the network gives them

// benchPut writes shards of one size; each is deleted again.
func benchPut(b *testing.B, s *shardstore.Store, size int) {
	segment := device.Segment(b, vault, storage.Redundancy{K: 1, N: 1}, size, "a")
	shard := segment.Shards[0]
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		w, err := s.CreateShard(b.Context(), segment.Header, 0, nil)
		if err != nil {
			b.Fatal(err)
		}
		for at := 0; at < size; at += benchFrame {
			if _, err := w.Write(shard[at:min(at+benchFrame, size)]); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			b.Fatal(err)
		}
		if err := s.DeleteShard(b.Context(), segment.ID(0)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut is a put on the real disk, with its syncs.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{64 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s, err := shardstore.Open(b.TempDir(), shardstore.Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			benchPut(b, s, size)
		})
	}
}

// BenchmarkVerify is what a read costs from the page cache, hash included.
func BenchmarkVerify(b *testing.B) {
	s, err := shardstore.Open(b.TempDir(), shardstore.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const size = 4 << 20
	segment := device.Segment(b, vault, storage.Redundancy{K: 1, N: 1}, size, "a")
	if err := storagetest.Put(b.Context(), s, segment, 0, nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Verify(b.Context(), segment.ID(0)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is how long a store of 10,000 shards takes to open.
func BenchmarkOpen(b *testing.B) {
	const shards = 10_000
	files := newCrashFS()
	s, err := shardstore.Open("", shardstore.Config{FS: files})
	if err != nil {
		b.Fatal(err)
	}
	for i := range shards {
		segment := device.Segment(b, vault, storage.Redundancy{K: 1, N: 1}, 16, fmt.Sprint(i))
		if err := storagetest.Put(b.Context(), s, segment, 0, nil); err != nil {
			b.Fatal(err)
		}
	}
	_ = s.Close()
	b.ReportAllocs()
	for b.Loop() {
		s, err := shardstore.Open("", shardstore.Config{FS: files})
		if err != nil {
			b.Fatal(err)
		}
		_ = s.Close()
	}
	b.ReportMetric(shards, "shards/op")
}
