package vault

import (
	"errors"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"gotong/storage/seal"
)

// TestAloneIsWhatForgettingFrees makes snapshots that share files, parts of
// files and whole directories at random, and forgets one after the other.
func TestAloneIsWhatForgettingFrees(t *testing.T) {
	f := newFixture(t)
	rng := rand.New(rand.NewPCG(1, 2))
	long := randomBytes(100, 9<<20)
	trees := []map[string][]byte{someFiles(1), someFiles(1)} // the same directory twice
	for range 6 {
		files := map[string][]byte{"long": slices.Clone(long)}
		for range 4 {
			maps.Copy(files, someFiles(byte(rng.IntN(12))))
		}
		if rng.IntN(2) == 0 {
			files["long"][rng.IntN(len(long))] ^= 1
		}
		trees = append(trees, files)
	}
	for _, files := range trees {
		f.tree(files)
	}
	sealed := func() uint64 {
		s, err := f.v.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.SealedBytes
	}
	some := false
	for left := len(trees); left > 0; left-- {
		alone, err := f.v.Alone(t.Context())
		if err != nil || len(alone) != left {
			t.Fatalf("%d of %d snapshots: %v", len(alone), left, err)
		}
		one := alone[rng.IntN(left)]
		before := sealed()
		f.forget(one.ID)
		f.prune(PruneOptions{})
		if freed := before - sealed(); freed != one.Sealed || one.Sealed*6/4-one.Stored > 100 { // each blob is rounded
			t.Fatalf("forgetting freed %d bytes, said were %d, stored %d", freed, one.Sealed, one.Stored)
		}
		some = some || one.Sealed > 1<<20 && left > 1
	}
	if !some {
		t.Error("no snapshot had much for itself")
	}
}

func TestAloneNeedsTheReadKey(t *testing.T) {
	f := newFixture(t)
	f.tree(someFiles(1))
	f.v.secrets = f.v.secrets.WithoutRead()
	if _, err := f.v.Alone(t.Context()); !errors.Is(err, seal.ErrNoReadKey) {
		t.Error(err)
	}
}

// TestAloneTakesLittleMemory: eight bytes for each blob, and room to grow.
func TestAloneTakesLittleMemory(t *testing.T) {
	const segments, each = 1000, 1000
	unique := [2]int{}
	u := &users{alone: func(user uint32, _ location, more bool) {
		if more {
			unique[user]++
		} else {
			unique[user]--
		}
	}}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for user := range uint32(2) {
		u.now = user
		for segment := range uint32(segments) {
			for offset := range uint32(each) {
				if user == 0 || offset%2 == 0 {
					u.met(location{segment: segment, offset: offset * 1000})
				}
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 20<<20 {
		t.Errorf("%d bytes for a million blobs", grown)
	}
	if unique != [2]int{segments * each / 2, 0} {
		t.Errorf("alone: %d", unique)
	}
	runtime.KeepAlive(u)
}
