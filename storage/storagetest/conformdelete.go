package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/erasure"
)

func (s *suite) putDeletions(deletions ...storage.SignedDeletion) {
	s.Helper()
	if err := s.store.PutDeletions(s.Context(), RawDeletions(deletions...)); err != nil {
		s.Fatal(err)
	}
}

// wantStates checks what Have says of a segment.
func (s *suite) wantStates(id storage.SegmentID, want ...storage.ShardAnswer) {
	s.Helper()
	answers, err := s.store.Have(s.Context(), []storage.SegmentID{id})
	if err != nil || len(answers) != 1 || !slices.Equal(answers[0].Shards, want) {
		s.Fatalf("%v, %v; want %v", answers, err, want)
	}
}

// wantDeleted: nothing of a segment is taken any more.
func (s *suite) wantDeleted(segment Segment) {
	s.Helper()
	for index := range segment.Shards {
		if err := Put(s.Context(), s.store, segment, index, nil); !errors.Is(err, storage.ErrDeleted) {
			s.Fatalf("shard %d of a deleted segment: %v, want ErrDeleted", index, err)
		}
	}
}

func (s *suite) deletions() {
	a, b, c := s.segment("a"), s.segment("b"), s.segment("c")
	s.put(a, 0, Holder("other", 1))
	s.put(a, 2)
	s.put(b, 1)
	first := s.device.Deletion(s.T, s.vault, 1, a.Header.ID, c.Header.ID)
	for range 2 { // a known one is acknowledged again
		s.putDeletions(first)
		s.wantStates(a.Header.ID, storage.ShardAnswer{Index: 0, State: storage.ShardTrash}, storage.ShardAnswer{Index: 2, State: storage.ShardTrash})
		s.wantStates(b.Header.ID, storage.ShardAnswer{Index: 1, State: storage.ShardStored})
		s.wantStates(c.Header.ID, storage.ShardAnswer{Index: 0, State: storage.ShardDeleted})
		s.wantList([]storage.ShardID{b.ID(1)})
		s.wantStored(a, 0) // can still be read
		s.wantStored(a, 2)
		s.wantDeleted(a)
		s.wantDeleted(c) // was named before it came
	}
	answers, err := s.store.Have(s.Context(), []storage.SegmentID{a.Header.ID})
	if err != nil || len(answers[0].Holders) != 1 {
		s.Errorf("holders of what is in the trash: %v, %v", answers, err)
	}
	s.putDeletions(s.device.Deletion(s.T, s.vault, 2, b.Header.ID))
	s.wantList(nil)
	s.wantStored(b, 1)
}

// Holder makes a holder of a shard from a seed.
func Holder(seed string, shard int) storage.Holder {
	return storage.Holder{Shard: shard, Peer: Peer(seed)}
}

// deletionsOfOthers: only the owner of a segment deletes it, and only in its
// own vault.
func (s *suite) deletionsOfOthers() {
	a := s.segment("a")
	s.put(a, 0)
	other := NewDevice("other owner")
	s.putDeletions(
		other.Deletion(s.T, s.vault, 1, a.Header.ID),
		s.device.Deletion(s.T, Vault("other"), 1, a.Header.ID),
	)
	s.wantStates(a.Header.ID, storage.ShardAnswer{Index: 0, State: storage.ShardStored})
	s.put(a, 1)
	s.wantStored(a, 0)
	for owner, vault := range map[grid.OwnerID]storage.VaultID{s.device.Owner: s.vault, other.Owner: Vault("other")} {
		if raw, err := s.store.Deletions(s.Context(), owner, vault, 0); err != nil || len(raw) != 0 {
			s.Errorf("%d deletions of another vault, %v", len(raw), err)
		}
	}
}

func (s *suite) deletedWhileWritten() {
	a := s.segment("a")
	w, err := s.store.CreateShard(s.Context(), a.Header, 0, nil)
	if err != nil {
		s.Fatal(err)
	}
	defer w.Abort()
	s.putDeletions(s.device.Deletion(s.T, s.vault, 1, a.Header.ID))
	_, writeErr := w.Write(a.Shards[0])
	if err := errors.Join(writeErr, w.Commit()); !errors.Is(err, storage.ErrDeleted) {
		s.Fatalf("shard whose segment was deleted meanwhile: %v, want ErrDeleted", err)
	}
	s.wantStates(a.Header.ID, storage.ShardAnswer{Index: 0, State: storage.ShardDeleted})
}

func (s *suite) deletionsHostile() {
	a := s.segment("a")
	s.put(a, 0)
	good := s.device.Deletion(s.T, s.vault, 1, a.Header.ID)
	for i := range good.Raw {
		altered := bytes.Clone(good.Raw)
		altered[i] ^= 1
		err := s.store.PutDeletions(s.Context(), [][]byte{altered})
		if !errors.Is(err, storage.ErrDenied) && !errors.Is(err, storage.ErrCorrupt) {
			s.Fatalf("byte %d altered: %v", i, err)
		}
	}
	for name, raw := range map[string][][]byte{"none": {}, "empty": {{}}, "a head": Raw(s.device.Heads(s.T, s.vault, 1)...),
		"many": slices.Repeat([][]byte{good.Raw}, storage.MaxPutDeletions+1), "one bad": {good.Raw[:len(good.Raw)-1], good.Raw}} {
		if err := s.store.PutDeletions(s.Context(), raw); err == nil {
			s.Errorf("%s accepted", name)
		}
	}
	s.wantStates(a.Header.ID, storage.ShardAnswer{Index: 0, State: storage.ShardStored})
	s.wantStored(a, 0)
}

// deletionsEpoch: a device that its owner took the vault away from deletes
// nothing in it any more; what it deleted before stays deleted.
func (s *suite) deletionsEpoch() {
	a, b := s.segment("a"), s.segment("b")
	s.put(a, 0)
	s.put(b, 0)
	before := s.device.Deletion(s.T, s.vault, 1, a.Header.ID)
	s.putDeletions(before)
	recovered := s.device.With(grid.CapAll, 2)
	s.putHeads(recovered.Head(s.T, s.vault, storage.SignedHead{}, "taken back"))
	late := s.device.Deletion(s.T, s.vault, 2, b.Header.ID)
	if err := s.store.PutDeletions(s.Context(), RawDeletions(late)); !errors.Is(err, storage.ErrStaleEpoch) {
		s.Fatalf("%v, want ErrStaleEpoch", err)
	}
	s.wantStates(b.Header.ID, storage.ShardAnswer{Index: 0, State: storage.ShardStored})
	s.putDeletions(before) // known
	s.putDeletions(recovered.Deletion(s.T, s.vault, 2, b.Header.ID))
	s.wantStates(b.Header.ID, storage.ShardAnswer{Index: 0, State: storage.ShardTrash})
}

// deletionPages: all come, once, in order; those of one number together.
func (s *suite) deletionPages() {
	var many []storage.SegmentID
	for i := range storage.MaxDeletionSegments {
		many = append(many, storage.SegmentID(Vault(fmt.Sprint("segment ", i))))
	}
	const count = 40
	for number := uint64(count); number > 0; number-- {
		s.putDeletions(s.device.Deletion(s.T, s.vault, number, many...))
	}
	for i := range storage.MaxSameNumber - 1 {
		s.putDeletions(s.device.Deletion(s.T, s.vault, 7, many[i:]...), s.device.Deletion(s.T, s.vault, 7, many[i+1:]...))
	}
	over := s.device.Deletion(s.T, s.vault, 7, many[100])
	if err := s.store.PutDeletions(s.Context(), RawDeletions(over)); !errors.Is(err, storage.ErrQuota) {
		s.Errorf("%d deletions under one number: %v, want ErrQuota", storage.MaxSameNumber+1, err)
	}
	pages, seen, after := 0, 0, uint64(0)
	for {
		raw, err := s.store.Deletions(s.Context(), s.device.Owner, s.vault, after)
		if err != nil {
			s.Fatal(err)
		}
		if len(raw) == 0 {
			break
		}
		deletions, err := storage.ParseDeletions(raw)
		if err != nil || deletions[0].Number <= after {
			s.Fatalf("page of %d after %d: %v", len(raw), after, err)
		}
		for i, d := range deletions {
			if i > 0 && d.Number < deletions[i-1].Number {
				s.Fatal("deletions out of order")
			}
		}
		pages, seen, after = pages+1, seen+len(raw), deletions[len(deletions)-1].Number
	}
	if seen != count+storage.MaxSameNumber-1 || pages < 2 || after != count {
		s.Errorf("%d deletions in %d pages up to number %d", seen, pages, after)
	}
}

func (s *suite) proofs() {
	a := s.segment("a")
	s.put(a, 0)
	s.put(a, 1)
	s.putDeletions(s.device.Deletion(s.T, s.vault, 1, s.segment("b").Header.ID))
	groups := storage.ProofGroups(shardSize)
	proofs, err := s.store.Prove(s.Context(), a.ID(1), []int{groups - 1, 0, 3})
	if err != nil || len(proofs) != 3 {
		s.Fatalf("%d proofs, %v", len(proofs), err)
	}
	for i, group := range []int{groups - 1, 0, 3} {
		if err := erasure.VerifyProof(a.Header.Roots[1], shardSize, group, proofs[i]); err != nil {
			s.Errorf("group %d: %v", group, err)
		}
		if err := erasure.VerifyProof(a.Header.Roots[0], shardSize, group, proofs[i]); !errors.Is(err, storage.ErrCorrupt) {
			s.Errorf("group %d proves another shard: %v", group, err)
		}
	}
	most := make([]int, storage.MaxProofGroups)
	if proofs, err := s.store.Prove(s.Context(), a.ID(0), most); err != nil || len(proofs) != len(most) {
		s.Errorf("%d of %d proofs, %v", len(proofs), len(most), err)
	}
	for name, bad := range map[string][]int{"none": nil, "too many": append(most, 0), "beyond the end": {0, groups}, "negative": {-1}} {
		if _, err := s.store.Prove(s.Context(), a.ID(0), bad); err == nil {
			s.Errorf("%s proved", name)
		}
	}
	if _, err := s.store.Prove(s.Context(), a.ID(2), []int{0}); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("proof of nothing: %v, want ErrNotFound", err)
	}
	s.wantStored(a, 0)
}
