package shardrpc_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/shardrpc"
	"gotong/storage/storagetest"
)

func collect(seq iter.Seq2[storage.ShardID, error]) (ids []storage.ShardID, err error) {
	for id, e := range seq {
		if e != nil {
			return ids, e
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// crowd returns a device with its grid: a second device of its owner, one
// other member that holds shards with it, and enough strangers to it that not
// all of them are chosen to keep its heads.
func crowd() (owner storagetest.Device, second, coHolder grid.PeerID, m members) {
	owner = storagetest.NewDevice("owner")
	second, coHolder = storagetest.Peer("second"), storagetest.Peer("co-holder")
	m = members{owner.Peer: owner.Owner, second: owner.Owner, coHolder: grid.OwnerID{1}}
	for i := range 40 {
		m[storagetest.Peer(string(rune('A'+i)))] = grid.OwnerID{2, byte(i)}
	}
	return owner, second, coHolder, m
}

func TestStrangersGetNothing(t *testing.T) {
	device := storagetest.NewDevice("owner")
	segment := device.Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 2}, 1000, "a")
	store := storagetest.NewMemory()
	if err := storagetest.Put(t.Context(), store, segment, 0, nil); err != nil {
		t.Fatal(err)
	}
	w := serve(t, shardrpc.ServerConfig{Store: store, Members: members{device.Peer: device.Owner}})
	stranger := w.client(t, storagetest.Peer("stranger"))
	ctx := t.Context()
	_, getErr := storagetest.Get(ctx, stranger, segment.ID(0), 0, -1)
	_, haveErr := stranger.Have(ctx, []storage.SegmentID{segment.Header.ID})
	_, listErr := collect(stranger.List(ctx, segment.Header.Vault))
	_, headsErr := stranger.Heads(ctx, device.Owner)
	for what, err := range map[string]error{
		"get": getErr, "have": haveErr, "list": listErr, "heads": headsErr,
		"history":   second(stranger.HeadHistory(ctx, device.Owner, segment.Header.Vault, storage.HeadCursor{})),
		"deletions": second(stranger.Deletions(ctx, device.Owner, segment.Header.Vault, 0)),
		"prove":     second(stranger.Prove(ctx, segment.ID(0), []int{0})),
		"delete":    stranger.PutDeletions(ctx, storagetest.RawDeletions(device.Deletion(t, segment.Header.Vault, 1, segment.Header.ID))),
		"put":       storagetest.Put(ctx, stranger, segment, 1, nil),
		"put heads": stranger.PutHeads(ctx, storagetest.Raw(device.Head(t, segment.Header.Vault, storage.SignedHead{}, "x"))),
	} {
		if !errors.Is(err, grid.ErrNotMember) {
			t.Errorf("%s by a stranger: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestDeletionsAreHandedOn: any member may bring a deletion, because its
// signature proves whose it is, and any may fetch those of a vault that it can
// name; the heads of a vault are shown to fewer.
func TestDeletionsAreHandedOn(t *testing.T) {
	device, _, coHolder, m := crowd()
	vault := storagetest.Vault("v")
	segment := device.Segment(t, vault, storage.Redundancy{K: 1, N: 2}, 1000, "a")
	store := storagetest.NewMemory()
	if err := storagetest.Put(t.Context(), store, segment, 0, []storage.Holder{{Shard: 1, Peer: coHolder}}); err != nil {
		t.Fatal(err)
	}
	if err := store.PutHeads(t.Context(), storagetest.Raw(device.Heads(t, vault, 3)...)); err != nil {
		t.Fatal(err)
	}
	w := serve(t, shardrpc.ServerConfig{Store: store, Members: m})
	history := func(as grid.PeerID) int {
		heads, err := w.client(t, as).HeadHistory(t.Context(), device.Owner, vault, storage.HeadCursor{})
		if err != nil {
			t.Fatal(err)
		}
		return len(heads)
	}
	blind := 0
	for i := range 40 {
		if history(storagetest.Peer(string(rune('A'+i)))) == 0 {
			blind++
		}
	}
	if history(device.Peer) != 3 || history(coHolder) != 3 || blind < 32 {
		t.Errorf("owner sees %d heads, co-holder %d, %d of 40 others none", history(device.Peer), history(coHolder), blind)
	}
	deletion := device.Deletion(t, vault, 1, segment.Header.ID)
	if err := w.client(t, storagetest.Peer("A")).PutDeletions(t.Context(), storagetest.RawDeletions(deletion)); err != nil {
		t.Fatal(err)
	}
	for _, as := range []grid.PeerID{device.Peer, coHolder, storagetest.Peer("B")} {
		raw, err := w.client(t, as).Deletions(t.Context(), device.Owner, vault, 0)
		if err != nil || len(raw) != 1 || !bytes.Equal(raw[0], deletion.Raw) {
			t.Errorf("%d deletions, %v", len(raw), err)
		}
	}
}

// TestProofsAreLimited: to prove is work, so a caller gets so much of it.
func TestProofsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := storagetest.NewDevice("owner")
		segment := device.Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 1}, 1000, "a")
		store := storagetest.NewMemory()
		if err := storagetest.Put(t.Context(), store, segment, 0, nil); err != nil {
			t.Fatal(err)
		}
		w := serve(t, shardrpc.ServerConfig{Store: store, Members: members{device.Peer: device.Owner}, ProofsPerSecond: 1, ProofsBurst: 10})
		c := w.client(t, device.Peer)
		prove := func(groups int) error { return second(c.Prove(t.Context(), segment.ID(0), make([]int, groups))) }
		if err := prove(8); err != nil {
			t.Error(err)
		}
		if err := prove(3); !errors.Is(err, shardrpc.ErrBusy) {
			t.Errorf("more than may be saved up: %v", err)
		}
		time.Sleep(time.Second)
		if err := prove(3); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
}

func TestAnyMemberMayRepair(t *testing.T) {
	device, _, _, m := crowd()
	segment := device.Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 2}, 1000, "a")
	w := serve(t, shardrpc.ServerConfig{Store: storagetest.NewMemory(), Members: m})
	other := w.client(t, storagetest.Peer("A"))
	if err := storagetest.Put(t.Context(), other, segment, 1, nil); err != nil {
		t.Error("another member cannot bring a shard:", err)
	}
	forged := segment
	forged.Header.Raw = slices.Clone(forged.Header.Raw)
	forged.Header.Raw[len(forged.Header.Raw)-1] ^= 1
	if err := storagetest.Put(t.Context(), other, forged, 0, nil); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("a forged signature: %v", err)
	}
	if data, err := storagetest.Get(t.Context(), other, segment.ID(1), 0, -1); err != nil || len(data) != 1000 {
		t.Errorf("a member who names the segment gets %d bytes, %v", len(data), err)
	}
}

func TestListShowsOnlyWhatIsYours(t *testing.T) {
	device, second, coHolder, m := crowd()
	vault := storagetest.Vault("v")
	store := storagetest.NewMemory()
	shared := device.Segment(t, vault, storage.Redundancy{K: 1, N: 2}, 1000, "shared")
	alone := device.Segment(t, vault, storage.Redundancy{K: 1, N: 2}, 1000, "alone")
	// A segment under the same vault id, by somebody who wants to see the others.
	intruder := storagetest.NewDevice("intruder")
	m[intruder.Peer] = intruder.Owner
	planted := intruder.Segment(t, vault, storage.Redundancy{K: 1, N: 2}, 1000, "planted")
	put := func(segment storagetest.Segment, holders ...storage.Holder) {
		if err := storagetest.Put(t.Context(), store, segment, 0, holders); err != nil {
			t.Fatal(err)
		}
	}
	put(shared, storage.Holder{Shard: 1, Peer: coHolder})
	put(alone)
	put(planted, storage.Holder{Shard: 1, Peer: intruder.Peer})
	w := serve(t, shardrpc.ServerConfig{Store: store, Members: m})

	for _, c := range []struct {
		who  string
		as   grid.PeerID
		want []storage.ShardID
	}{
		{"owner", device.Peer, []storage.ShardID{shared.ID(0), alone.ID(0)}},
		{"second device", second, []storage.ShardID{shared.ID(0), alone.ID(0)}},
		{"co-holder", coHolder, []storage.ShardID{shared.ID(0)}},
		{"intruder", intruder.Peer, []storage.ShardID{planted.ID(0)}},
		{"other", storagetest.Peer("A"), nil},
	} {
		got, err := collect(w.client(t, c.as).List(t.Context(), vault))
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%s sees %v, %v", c.who, got, err)
		}
		for _, id := range c.want {
			if !slices.Contains(got, id) {
				t.Errorf("%s does not see %s", c.who, id)
			}
		}
	}
}

func TestHeadsShowOnlyWhatIsYours(t *testing.T) {
	device, second, coHolder, m := crowd()
	vault := storagetest.Vault("v")
	store := storagetest.NewMemory()
	segment := device.Segment(t, vault, storage.Redundancy{K: 1, N: 2}, 1000, "a")
	if err := storagetest.Put(t.Context(), store, segment, 0, []storage.Holder{{Shard: 1, Peer: coHolder}}); err != nil {
		t.Fatal(err)
	}
	if err := store.PutHeads(t.Context(), storagetest.Raw(device.Heads(t, vault, 3)...)); err != nil {
		t.Fatal(err)
	}
	intruder := storagetest.NewDevice("intruder")
	m[intruder.Peer] = intruder.Owner
	planted := intruder.Segment(t, vault, storage.Redundancy{K: 1, N: 2}, 1000, "planted")
	if err := storagetest.Put(t.Context(), store, planted, 0, []storage.Holder{{Shard: 1, Peer: intruder.Peer}}); err != nil {
		t.Fatal(err)
	}
	w := serve(t, shardrpc.ServerConfig{Store: store, Members: m})
	see := func(as grid.PeerID) int {
		vaults, err := w.client(t, as).Heads(t.Context(), device.Owner)
		if err != nil {
			t.Fatal(err)
		}
		if len(vaults) == 0 {
			return 0
		}
		return len(vaults[0].Links)
	}
	for who, as := range map[string]grid.PeerID{"owner": device.Peer, "second device": second, "co-holder": coHolder} {
		if n := see(as); n != 3 {
			t.Errorf("%s sees %d of 3 heads", who, n)
		}
	}
	if n := see(intruder.Peer); n != 0 {
		t.Errorf("the intruder sees %d heads", n)
	}
	blind := 0
	for i := range 40 {
		if see(storagetest.Peer(string(rune('A'+i)))) == 0 {
			blind++
		}
	}
	if blind < 32 { // eight members at most keep the heads
		t.Errorf("only %d of 40 others see no heads", blind)
	}
}

func TestCallersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := storagetest.NewDevice("owner")
		segment := device.Segment(t, storagetest.Vault("v"), storage.Redundancy{K: 1, N: 3}, 1000, "a")
		w := serve(t, shardrpc.ServerConfig{
			Store: storagetest.NewMemory(), Members: members{device.Peer: device.Owner},
			StreamsPerPeer: 2, CallsPerSecond: 1, CallsBurst: 5,
		})
		c := w.client(t, device.Peer)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 2 {
			if _, err := c.CreateShard(ctx, segment.Header, i, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.CreateShard(ctx, segment.Header, 2, nil); !errors.Is(err, shardrpc.ErrBusy) {
			t.Errorf("a third transfer: %v", err)
		}
		var err error
		calls := 0
		for ; err == nil && calls < 100; calls++ {
			_, err = c.Have(ctx, []storage.SegmentID{segment.Header.ID})
		}
		if !errors.Is(err, shardrpc.ErrBusy) || calls != 4 {
			t.Errorf("call %d after two of a burst of five: %v", calls, err)
		}
		cancel()
	})
}
