package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"gotong/storage"
)

// Run checks that the store that open returns keeps all that the interfaces of
// package storage promise. Each part opens a store of its own, which is empty
// and has room for a few megabytes; open registers its own clean-up. Abilities
// beyond storage.RemoteShards are checked when the store has them.
func Run(t *testing.T, open func(t *testing.T) storage.RemoteShards) {
	parts := []struct {
		name string
		run  func(*suite)
	}{
		{"RoundTrip", (*suite).roundTrip},
		{"Ranges", (*suite).ranges},
		{"Unknown", (*suite).unknown},
		{"WrongBytes", (*suite).wrongBytes},
		{"Abort", (*suite).abort},
		{"Again", (*suite).again},
		{"BadIndex", (*suite).badIndex},
		{"Cancelled", (*suite).cancelled},
		{"Have", (*suite).have},
		{"Concurrent", (*suite).concurrent},
		{"ConcurrentSame", (*suite).concurrentSame},
		{"ListAndDelete", (*suite).listAndDelete},
		{"Heads", (*suite).heads},
		{"HeadsHostile", (*suite).headsHostile},
		{"HeadsFork", (*suite).headsFork},
		{"HeadsEpoch", (*suite).headsEpoch},
		{"HeadsOfOwners", (*suite).headsOfOwners},
		{"HeadsBounded", (*suite).headsBounded},
		{"HeadHistory", (*suite).headHistory},
		{"Deletions", (*suite).deletions},
		{"DeletionsOfOthers", (*suite).deletionsOfOthers},
		{"DeletedWhileWritten", (*suite).deletedWhileWritten},
		{"DeletionsHostile", (*suite).deletionsHostile},
		{"DeletionsEpoch", (*suite).deletionsEpoch},
		{"DeletionPages", (*suite).deletionPages},
		{"Proofs", (*suite).proofs},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			part.run(&suite{T: t, store: open(t), device: NewDevice("conformance"), vault: Vault("conformance")})
		})
	}
}

// suite is one part of Run with its own store.
type suite struct {
	*testing.T
	store  storage.RemoteShards
	device Device
	vault  storage.VaultID
}

// shardSize is no multiple of anything that a store might like.
const shardSize = 300_001

func (s *suite) segment(seed string) Segment {
	return s.device.Segment(s.T, s.vault, storage.Redundancy{K: 2, N: 3}, shardSize, seed)
}

// Put stores one shard and commits it.
func Put(ctx context.Context, store storage.ShardCreator, segment Segment, index int, holders []storage.Holder) error {
	w, err := store.CreateShard(ctx, segment.Header, index, holders)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(segment.Shards[index]); err != nil {
		return err
	}
	return w.Commit()
}

// Get reads one shard, or n bytes of it from off, to its end.
func Get(ctx context.Context, store storage.ShardOpener, id storage.ShardID, off, n int64) ([]byte, error) {
	r, err := store.OpenShard(ctx, id, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func (s *suite) put(segment Segment, index int, holders ...storage.Holder) {
	s.Helper()
	if err := Put(s.Context(), s.store, segment, index, holders); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) wantStored(segment Segment, index int) {
	s.Helper()
	data, err := Get(s.Context(), s.store, segment.ID(index), 0, -1)
	if err != nil || !bytes.Equal(data, segment.Shards[index]) {
		s.Fatalf("shard %d does not come back: %d bytes, %v", index, len(data), err)
	}
}

func (s *suite) wantMissing(id storage.ShardID) {
	s.Helper()
	if _, err := Get(s.Context(), s.store, id, 0, -1); !errors.Is(err, storage.ErrNotFound) {
		s.Fatalf("shard that was never stored: %v, want ErrNotFound", err)
	}
}

func (s *suite) roundTrip() {
	segment := s.segment("a")
	holders := []storage.Holder{{Shard: 1, Peer: Peer("one"), Epoch: 3}, {Shard: 0, Peer: Peer("zero")}}
	s.put(segment, 1, holders...)
	s.wantStored(segment, 1)
	r, err := s.store.OpenShard(s.Context(), segment.ID(1), 0, -1)
	if err != nil {
		s.Fatal(err)
	}
	if !bytes.Equal(r.Header().Raw, segment.Header.Raw) || r.Header().ID != segment.Header.ID {
		s.Error("the header is not the one that was stored")
	}
	if want := []storage.Holder{holders[1], holders[0]}; !slices.Equal(r.Holders(), want) {
		s.Errorf("holders %v, want %v", r.Holders(), want)
	}
	if err := r.Close(); err != nil {
		s.Error("closed before its end:", err)
	}
}

func (s *suite) ranges() {
	segment := s.segment("a")
	s.put(segment, 0)
	shard := segment.Shards[0]
	for _, c := range [][2]int64{{0, 1}, {0, shardSize}, {1, -1}, {shardSize - 1, 1}, {4096, 65536}, {100, 0}, {shardSize, -1}, {shardSize, 0}} {
		off, n := c[0], c[1]
		end := off + n
		if n < 0 {
			end = shardSize
		}
		data, err := Get(s.Context(), s.store, segment.ID(0), off, n)
		if err != nil || !bytes.Equal(data, shard[off:end]) {
			s.Errorf("%d bytes from %d: %d bytes, %v", n, off, len(data), err)
		}
	}
	for _, c := range [][2]int64{{-1, 1}, {0, shardSize + 1}, {shardSize + 1, 0}, {shardSize + 1, -1}, {1, 1<<63 - 1}} {
		if _, err := Get(s.Context(), s.store, segment.ID(0), c[0], c[1]); err == nil {
			s.Errorf("%d bytes from %d: no error", c[1], c[0])
		}
	}
}

func (s *suite) unknown() {
	segment := s.segment("a")
	s.wantMissing(segment.ID(0))
	s.put(segment, 0)
	s.wantMissing(segment.ID(1))
}

func (s *suite) wrongBytes() {
	good := s.segment("a")
	for name, data := range map[string][]byte{
		"altered": append(bytes.Clone(good.Shards[0][:shardSize-1]), good.Shards[0][shardSize-1]^1),
		"short":   good.Shards[0][:shardSize-1],
		"long":    append(bytes.Clone(good.Shards[0]), 0),
		"empty":   nil,
		"swapped": good.Shards[1],
	} {
		wrong := good
		wrong.Shards = [][]byte{data}
		if err := Put(s.Context(), s.store, wrong, 0, nil); !errors.Is(err, storage.ErrCorrupt) {
			s.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
		s.wantMissing(good.ID(0))
	}
	s.put(good, 0)
	s.wantStored(good, 0)
}

func (s *suite) abort() {
	segment := s.segment("a")
	w, err := s.store.CreateShard(s.Context(), segment.Header, 0, nil)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := w.Write(segment.Shards[0]); err != nil {
		s.Fatal(err)
	}
	w.Abort()
	w.Abort()
	s.wantMissing(segment.ID(0))
	if err := w.Commit(); err == nil {
		s.Error("Commit after Abort succeeds")
	}
	s.wantMissing(segment.ID(0))

	s.put(segment, 0) // Put aborts after Commit
	s.wantStored(segment, 0)
}

func (s *suite) again() {
	segment := s.segment("a")
	s.put(segment, 0, storage.Holder{Shard: 0, Peer: Peer("zero")}, storage.Holder{Shard: 1, Peer: Peer("old"), Epoch: 1})
	err := Put(s.Context(), s.store, segment, 0, []storage.Holder{{Shard: 1, Peer: Peer("new"), Epoch: 2}})
	if !errors.Is(err, storage.ErrExists) {
		s.Fatalf("stored twice: %v, want ErrExists", err)
	}
	s.wantStored(segment, 0)
	answers, err := s.store.Have(s.Context(), []storage.SegmentID{segment.Header.ID})
	want := []storage.Holder{{Shard: 0, Peer: Peer("zero")}, {Shard: 1, Peer: Peer("new"), Epoch: 2}}
	if err != nil || !slices.Equal(answers[0].Holders, want) {
		s.Fatalf("holder lists are not merged: %v, %v", answers, err)
	}
}

func (s *suite) badIndex() {
	segment := s.segment("a")
	for _, index := range []int{-1, 3, 255, 1 << 20} {
		if _, err := s.store.CreateShard(s.Context(), segment.Header, index, nil); err == nil {
			s.Errorf("shard %d of 3 accepted", index)
		}
	}
	if _, err := s.store.CreateShard(s.Context(), storage.SignedHeader{}, 0, nil); err == nil {
		s.Error("shard without a header accepted")
	}
}

func (s *suite) cancelled() {
	segment := s.segment("a")
	ctx, cancel := context.WithCancel(s.Context())
	w, err := s.store.CreateShard(ctx, segment.Header, 0, nil)
	if err != nil {
		s.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(segment.Shards[0][:100]); err != nil {
		s.Fatal(err)
	}
	cancel()
	_, _ = w.Write(segment.Shards[0][100:])
	if err := w.Commit(); err == nil {
		s.Error("Commit succeeds after its context ended")
	}
	s.wantMissing(segment.ID(0))
	if _, err := s.store.CreateShard(ctx, segment.Header, 0, nil); !errors.Is(err, context.Canceled) {
		s.Errorf("CreateShard with an ended context: %v", err)
	}
	if _, err := s.store.OpenShard(ctx, segment.ID(0), 0, -1); !errors.Is(err, context.Canceled) {
		s.Errorf("OpenShard with an ended context: %v", err)
	}
}

func (s *suite) have() {
	a, b := s.segment("a"), s.segment("b")
	s.put(a, 2)
	s.put(a, 0)
	none := storage.SegmentID(Vault("no such segment"))
	answers, err := s.store.Have(s.Context(), []storage.SegmentID{none, a.Header.ID, b.Header.ID, a.Header.ID})
	if err != nil || len(answers) != 4 {
		s.Fatalf("%d answers to 4 questions: %v", len(answers), err)
	}
	stored := []storage.ShardAnswer{{Index: 0, State: storage.ShardStored}, {Index: 2, State: storage.ShardStored}}
	for i, want := range []storage.SegmentAnswer{{Segment: none}, {Segment: a.Header.ID, Shards: stored}, {Segment: b.Header.ID}, {Segment: a.Header.ID, Shards: stored}} {
		if answers[i].Segment != want.Segment || !slices.Equal(answers[i].Shards, want.Shards) {
			s.Errorf("answer %d: %v, want %v", i, answers[i], want)
		}
	}
	if _, err := s.store.Have(s.Context(), make([]storage.SegmentID, storage.MaxHave+1)); err == nil {
		s.Error("more than MaxHave questions answered")
	}
	if answers, err := s.store.Have(s.Context(), nil); err != nil || len(answers) != 0 {
		s.Errorf("no question: %v, %v", answers, err)
	}
}

func (s *suite) concurrent() {
	segments := []Segment{s.segment("a"), s.segment("b"), s.segment("c")}
	var group sync.WaitGroup
	for _, segment := range segments {
		for index := range segment.Shards {
			group.Go(func() {
				if err := Put(s.Context(), s.store, segment, index, nil); err != nil {
					s.Error(err)
				}
			})
		}
	}
	group.Wait()
	for _, segment := range segments {
		for index := range segment.Shards {
			s.wantStored(segment, index)
		}
	}
}

// concurrentSame: of several writers of one shard at least one stores it, and
// no other loses it again.
func (s *suite) concurrentSame() {
	segment := s.segment("a")
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			data := segment
			if i%3 == 2 {
				data.Shards = [][]byte{segment.Shards[1]} // wrong bytes
			}
			err := Put(s.Context(), s.store, data, 0, nil)
			if i%3 == 2 && err == nil {
				s.Error("wrong bytes committed")
			} else if i%3 != 2 && err != nil && !errors.Is(err, storage.ErrExists) {
				s.Error(err)
			}
		})
	}
	group.Wait()
	s.wantStored(segment, 0)
}

func (s *suite) listAndDelete() {
	a, b := s.segment("a"), s.segment("b")
	other := s.device.Segment(s.T, Vault("other"), storage.Redundancy{K: 1, N: 1}, 10, "c")
	for _, id := range []int{2, 0} {
		s.put(a, id)
		s.put(b, id)
	}
	s.put(other, 0)
	want := []storage.ShardID{a.ID(0), a.ID(2), b.ID(0), b.ID(2)}
	slices.SortFunc(want, func(x, y storage.ShardID) int { return bytes.Compare([]byte(x.String()), []byte(y.String())) })
	s.wantList(want)
	deleter, ok := s.store.(storage.ShardDeleter)
	if !ok {
		return // a remote store does not offer it
	}
	if err := deleter.DeleteShard(s.Context(), want[1]); err != nil {
		s.Fatal(err)
	}
	if err := deleter.DeleteShard(s.Context(), want[1]); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("deleted twice: %v", err)
	}
	s.wantMissing(want[1])
	s.wantList(slices.Delete(want, 1, 2))
}

func (s *suite) wantList(want []storage.ShardID) {
	s.Helper()
	var got []storage.ShardID
	for id, err := range s.store.List(s.Context(), s.vault) {
		if err != nil {
			s.Fatal(err)
		}
		got = append(got, id)
	}
	if !slices.Equal(got, want) {
		s.Errorf("listed %v, want %v", got, want)
	}
}
