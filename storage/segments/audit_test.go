package segments_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// prover gives proofs as told.
type prover struct {
	storage.RemoteShards
	prove func(storage.ShardProver, storage.ShardID, []int) ([][]byte, error)
}

func (p *prover) Prove(_ context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	return p.prove(p.RemoteShards, id, groups)
}

// TestAudit tells apart who has a shard, who has lost it, who lies and who does
// not answer.
func TestAudit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		s := f.open(storage.Redundancy{K: 2, N: 6})
		put := f.mustPut(s, randomBytes(300_000))
		id := func(i int) storage.ShardID { return storage.ShardID{Segment: put.ID, Index: i} }
		holder := func(i int) *friend { return f.by(put.Holders[i].Peer) }
		if err := holder(1).memory.DeleteShard(t.Context(), id(1)); err != nil {
			t.Fatal(err)
		}
		holder(2).memory.Damage(id(2))
		f.absent[holder(3).peer] = true
		holder(4).store = hanging{deaf: f.testEnds()}
		last := storage.ProofGroups(put.Header.ShardBytes) - 1
		for i, want := range []error{nil, storage.ErrNotFound, storage.ErrCorrupt, grid.ErrUnreachable, segments.ErrTimeout, nil} {
			err := s.Audit(t.Context(), holder(i).peer, id(i), put.Header.Roots[i], put.Header.ShardBytes, []int{0, last, 3})
			if !errors.Is(err, want) {
				t.Errorf("%d: %v, want %v", i, err, want)
			}
		}
		if p := s.Problems(); len(p) != 1 || p[0].Peer != holder(2).peer {
			t.Errorf("%+v", p)
		}
		for name, prove := range map[string]func(storage.ShardProver, storage.ShardID, []int) ([][]byte, error){
			"nothing": func(storage.ShardProver, storage.ShardID, []int) ([][]byte, error) { return nil, nil },
			"too few": func(p storage.ShardProver, id storage.ShardID, g []int) ([][]byte, error) {
				return p.Prove(t.Context(), id, g[1:])
			},
			"other groups": func(p storage.ShardProver, id storage.ShardID, _ []int) ([][]byte, error) {
				return p.Prove(t.Context(), id, []int{1, 2})
			},
			"another shard": func(storage.ShardProver, storage.ShardID, []int) ([][]byte, error) {
				return holder(5).memory.Prove(t.Context(), id(5), []int{0, 1})
			},
		} {
			holder(0).store = &prover{holder(0).memory, prove}
			if err := s.Audit(t.Context(), holder(0).peer, id(0), put.Header.Roots[0], put.Header.ShardBytes, []int{0, 1}); !errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestDelete: all who answer have the deletion, who does not is named, and what
// waits in the spool goes too.
func TestDelete(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		spool, err := segments.OpenSpool(segments.SpoolConfig{Dir: t.TempDir(), Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		s := f.open(fourOfSix, func(c *segments.Config) { c.Spool = spool })
		f.away[f.list[3].peer] = true
		f.list[4].store = hanging{f.list[4].memory, nil}
		put, err := s.Put(t.Context(), randomBytes(1000))
		if err != nil || !spool.Has(put.ID) {
			t.Fatal(put, err)
		}
		deletion := f.device.Deletion(t, f.vault, 1, put.ID)
		acked, silent, err := s.Delete(t.Context(), [][]byte{deletion.Raw})
		if err != nil || len(acked) != 4 || len(silent) != 3 { // the device itself has no store here
			t.Errorf("%d acked, %d silent, %v", len(acked), len(silent), err)
		}
		for _, peer := range []grid.PeerID{f.list[3].peer, f.list[4].peer, f.device.Peer} {
			if !slices.Contains(silent, peer) {
				t.Errorf("%s is not silent", peer.Short())
			}
		}
		if spool.Has(put.ID) {
			t.Error("the spool keeps what was deleted")
		}
		v := f.survey(s, askOf(put))
		if got := len(v.Stored()); got != 4 { // in the trash
			t.Errorf("%+v", v)
		}
		if _, _, err := s.Delete(t.Context(), [][]byte{deletion.Raw[1:]}); !errors.Is(err, storage.ErrCorrupt) {
			t.Error(err)
		}
		var many [][]byte
		for i := range storage.MaxPutDeletions + 10 {
			many = append(many, f.device.Deletion(t, f.vault, uint64(i+2), storage.SegmentID{byte(i), byte(i >> 8)}).Raw)
		}
		if acked, _, err = s.Delete(t.Context(), many); err != nil || len(acked) != 4 {
			t.Errorf("%d acked, %v", len(acked), err)
		}
		numbers := map[uint64]int{}
		answered, members, err := s.Deletions(t.Context(), f.device.Owner, f.vault, func(d storage.SignedDeletion) { numbers[d.Number]++ })
		if err != nil || answered != 5 || members != 7 || len(numbers) != len(many)+1 || numbers[1] != 4 || numbers[uint64(len(many)+1)] != 4 {
			t.Errorf("%d of %d members told %d deletions, %v", answered, members, len(numbers), err)
		}
	})
}

// TestDeletedIsNotRebuilt: holders refuse what was deleted, and say so.
func TestDeletedIsNotRebuilt(t *testing.T) {
	f := newFriends(t, 9)
	s := f.open(fourOfSix)
	put := f.mustPut(s, randomBytes(1000))
	f.by(put.Holders[0].Peer).wipe()
	wiped := f.by(put.Holders[0].Peer)
	job := f.jobFor(s, put, put.Holders)
	if _, _, err := s.Delete(t.Context(), [][]byte{f.device.Deletion(t, f.vault, 1, put.ID).Raw}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Rebuild(t.Context(), job)
	if err != nil || len(got.Placed) > 0 || !slices.ContainsFunc(got.Causes, func(c segments.PeerError) bool { return errors.Is(c.Err, storage.ErrDeleted) }) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := wiped.memory.OpenShard(t.Context(), storage.ShardID{Segment: put.ID}, 0, -1); !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrDeleted) {
		t.Error(err)
	}
}

// TestHeadHistory pages through all heads although each holder knows only some,
// and whoever gives nonsense changes nothing.
func TestHeadHistory(t *testing.T) {
	f := newFriends(t, 5)
	s := f.open(auto)
	heads := f.device.Heads(t, f.vault, 200)
	for i, friend := range f.list {
		from := i * 30
		for at := from; at < len(heads)-from; at += storage.MaxPutHeads {
			to := min(at+storage.MaxPutHeads, len(heads)-from)
			if err := friend.memory.PutHeads(t.Context(), storagetest.Raw(heads[at:to]...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.list[4].store = &nonsense{f.list[4].memory, f.device.Heads(t, storagetest.Vault("other"), 3)}
	var got []storage.SignedHead
	var below storage.HeadCursor
	for range 100 {
		page, err := s.HeadHistory(t.Context(), f.device.Owner, f.vault, below)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		below = page[len(page)-1].Cursor()
	}
	if len(got) != len(heads) {
		t.Fatalf("%d of %d heads", len(got), len(heads))
	}
	for i, head := range got {
		if head.ID != heads[len(heads)-1-i].ID {
			t.Fatalf("head %d is in the place of %d", head.Seq, heads[len(heads)-1-i].Seq)
		}
	}
	if p := s.Problems(); len(p) != 1 || p[0].Peer != f.list[4].peer {
		t.Errorf("%+v", p)
	}
}

// nonsense gives heads of another vault.
type nonsense struct {
	storage.RemoteShards
	heads []storage.SignedHead
}

func (n *nonsense) HeadHistory(context.Context, grid.OwnerID, storage.VaultID, storage.HeadCursor) ([][]byte, error) {
	return storagetest.Raw(n.heads...), nil
}
