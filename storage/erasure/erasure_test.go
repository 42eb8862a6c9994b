package erasure_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/erasure"
)

func drawRedundancy(t *rapid.T) storage.Redundancy {
	n := rapid.IntRange(1, storage.MaxShards).Draw(t, "n")
	return storage.Redundancy{K: rapid.IntRange(1, n).Draw(t, "k"), N: n}
}

// padded returns length pseudo-random bytes with the zeros that r needs.
func padded(length int, r storage.Redundancy, seed uint64) []byte {
	segment := make([]byte, erasure.PaddedSize(length, r))
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = rng.Read(segment[:length])
	return segment
}

func newCoder(t testing.TB, r storage.Redundancy) *erasure.Coder {
	coder, err := erasure.New(r)
	if err != nil {
		t.Fatal(err)
	}
	return coder
}

// TestAnyKShardsRebuild loses a random set of shards each time: with k left the
// segment and every lost shard come back, with fewer nothing does.
func TestAnyKShardsRebuild(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRedundancy(rt)
		length := rapid.IntRange(1, 4000).Draw(rt, "length")
		segment := padded(length, r, rapid.Uint64().Draw(rt, "seed"))
		coder := newCoder(t, r)
		shards, roots, err := coder.Encode(segment, nil)
		if err != nil {
			rt.Fatal(err)
		}
		kept := rapid.IntRange(0, r.N).Draw(rt, "kept")
		order := rapid.Permutation(indices(r.N)).Draw(rt, "order")

		rebuilt := make([]byte, len(segment))
		have := coder.Slots(rebuilt)
		for _, i := range order[:kept] {
			have[i] = append(have[i], shards[i]...)
		}
		all := make([][]byte, r.N)
		copy(all, have)

		err = coder.Reconstruct(have)
		if kept < r.K {
			if !errors.Is(err, storage.ErrTooFewShards) {
				rt.Fatalf("%d of %s shards: %v", kept, r, err)
			}
			return
		}
		if err != nil || !bytes.Equal(rebuilt, segment) {
			rt.Fatalf("%d of %s shards do not rebuild the segment in place: %v", kept, r, err)
		}
		if err := coder.Rebuild(all, order[kept:]); err != nil {
			rt.Fatal(err)
		}
		for i, shard := range all {
			if err := erasure.Verify(shard, roots[i]); err != nil {
				rt.Fatalf("rebuilt shard %d of %s: %v", i, r, err)
			}
		}
	})
}

func TestAnyAlteredShardIsFound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRedundancy(rt)
		segment := padded(rapid.IntRange(1, 4000).Draw(rt, "length"), r, rapid.Uint64().Draw(rt, "seed"))
		shards, roots, err := newCoder(t, r).Encode(segment, nil)
		if err != nil {
			rt.Fatal(err)
		}
		i := rapid.IntRange(0, r.N-1).Draw(rt, "shard")
		altered := bytes.Clone(shards[i])
		switch rapid.SampledFrom([]string{"flip", "cut", "grow"}).Draw(rt, "how") {
		case "flip":
			bit := rapid.IntRange(0, 8*len(altered)-1).Draw(rt, "bit")
			altered[bit/8] ^= 1 << (bit % 8)
		case "cut":
			altered = altered[:rapid.IntRange(0, len(altered)-1).Draw(rt, "at")]
		case "grow":
			altered = append(altered, 0)
		}
		if err := erasure.Verify(altered, roots[i]); !errors.Is(err, storage.ErrCorrupt) {
			rt.Fatalf("altered shard passes: %v", err)
		}
		if err := erasure.Verify(shards[i], roots[i]); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestEncodeCopiesNothing(t *testing.T) {
	r := storage.Redundancy{K: 4, N: 6}
	segment := padded(1000, r, 1)
	parity := make([]byte, 0, erasure.ParitySize(1000, r))
	shards, _, err := newCoder(t, r).Encode(segment, parity)
	if err != nil {
		t.Fatal(err)
	}
	if &shards[1][0] != &segment[erasure.ShardSize(1000, r)] || &shards[4][0] != &parity[:1][0] {
		t.Fatal("shards do not lie in the buffers given")
	}
}

func TestNewRefusesImpossibleRedundancy(t *testing.T) {
	for _, r := range []storage.Redundancy{{}, {K: 0, N: 3}, {K: 4, N: 3}, {K: 1, N: 31}, {K: -1, N: 1}} {
		if _, err := erasure.New(r); err == nil {
			t.Errorf("%+v accepted", r)
		}
	}
}

func TestEncodeRefusesUnpaddedSegment(t *testing.T) {
	coder := newCoder(t, storage.Redundancy{K: 4, N: 6})
	for _, length := range []int{0, 1, 1001} {
		if _, _, err := coder.Encode(make([]byte, length), nil); err == nil {
			t.Errorf("segment of %d bytes accepted", length)
		}
	}
}

// TestStoredFormat pins matrix and field: shards stored by any version must
// rebuild with every later one.
func TestStoredFormat(t *testing.T) {
	for r, hash := range pinnedParity {
		segment := make([]byte, r.K*64)
		for i := range segment {
			segment[i] = byte(i * 7)
		}
		shards, _, err := newCoder(t, r).Encode(segment, nil)
		if err != nil {
			t.Fatal(err)
		}
		sum := blake3.Sum256(bytes.Join(shards[r.K:], nil))
		if got := hex.EncodeToString(sum[:8]); got != hash {
			t.Errorf("parity of %s: %s, stored ones have %s", r, got, hash)
		}
	}
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

var benchmarked = []storage.Redundancy{{K: 4, N: 6}, {K: 8, N: 20}, {K: 10, N: 30}}

func BenchmarkEncode(b *testing.B) {
	for _, r := range benchmarked {
		b.Run(r.String(), func(b *testing.B) {
			segment := padded(storage.MaxSegmentBytes, r, 1)
			parity := make([]byte, erasure.ParitySize(storage.MaxSegmentBytes, r))
			coder := newCoder(b, r)
			b.SetBytes(storage.MaxSegmentBytes)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := coder.Encode(segment, parity); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReconstruct(b *testing.B) {
	for _, r := range benchmarked {
		for _, lost := range []int{1, r.N - r.K} {
			b.Run(fmt.Sprintf("%s/lost=%d", r, lost), func(b *testing.B) {
				segment := padded(storage.MaxSegmentBytes, r, 1)
				coder := newCoder(b, r)
				shards, _, err := coder.Encode(segment, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(storage.MaxSegmentBytes)
				b.ReportAllocs()
				for b.Loop() {
					for i := range min(lost, r.K) {
						shards[i] = shards[i][:0]
					}
					if err := coder.Reconstruct(shards); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	shard := padded(4<<20, storage.Redundancy{K: 1, N: 1}, 1)
	root := blake3.Sum256(shard)
	b.SetBytes(int64(len(shard)))
	for b.Loop() {
		if err := erasure.Verify(shard, root); err != nil {
			b.Fatal(err)
		}
	}
}

var pinnedParity = map[storage.Redundancy]string{
	{K: 1, N: 3}:   "b751e9167a1c61dd",
	{K: 4, N: 6}:   "ffa4489f7cd7df24",
	{K: 10, N: 30}: "9907b44e42d792b5",
}
