package segments_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/segments"
	"gotong/storage/storagetest"
)

// friend is another peer with its store and its faults.
type friend struct {
	peer   grid.PeerID
	memory *storagetest.Memory
	faults *storagetest.Faulty
	store  storage.RemoteShards // what the tested side talks to
}

// friends is a grid of one device and its friends; friend i is on site i unless
// sites says otherwise.
type friends struct {
	t       testing.TB
	device  storagetest.Device
	vault   storage.VaultID
	list    []*friend
	sites   []string
	absent  map[grid.PeerID]bool // known, but not connected
	away    map[grid.PeerID]bool // known to be so
	removed map[grid.PeerID]bool // no members any more
	line    *line                // behind which the device is; nil: none
	offered int                  // how many are candidates; the rest are members only
}

const friendBytes = 1 << 30

func newFriends(t testing.TB, n int) *friends {
	f := &friends{t: t, device: storagetest.NewDevice("me"), vault: storagetest.Vault("v"), absent: map[grid.PeerID]bool{}, away: map[grid.PeerID]bool{},
		removed: map[grid.PeerID]bool{}, offered: n}
	for i := range n {
		memory := storagetest.NewMemory()
		faults := storagetest.NewFaulty(memory)
		f.list = append(f.list, &friend{storagetest.Peer(fmt.Sprint("friend ", i)), memory, faults, faults})
		f.sites = append(f.sites, fmt.Sprint("site ", i))
	}
	return f
}

func (f *friends) Shards(peer grid.PeerID) (storage.RemoteShards, error) {
	for _, friend := range f.list {
		if friend.peer == peer && !f.absent[peer] && !f.away[peer] && !f.removed[peer] {
			return friend.store, nil
		}
	}
	return nil, fmt.Errorf("dial %s: %w", peer.Short(), grid.ErrUnreachable)
}

func (f *friends) Candidates(context.Context, grid.OwnerID, grid.PeerID) []placement.Candidate {
	var out []placement.Candidate
	for i, friend := range f.list[:f.offered] {
		if f.removed[friend.peer] {
			continue
		}
		out = append(out, placement.Candidate{Peer: friend.peer, Site: f.sites[i], Pledge: friendBytes, Free: friendBytes, Away: f.away[friend.peer], Seen: time.Now()})
	}
	return out
}

func (f *friends) Site(peer grid.PeerID) string {
	for i, friend := range f.list {
		if friend.peer == peer {
			return f.sites[i]
		}
	}
	return ""
}

func (f *friends) Members() []grid.PeerID {
	members := []grid.PeerID{f.device.Peer}
	for _, friend := range f.list {
		if !f.removed[friend.peer] {
			members = append(members, friend.peer)
		}
	}
	return members
}

// open returns Segments of the device over the friends.
func (f *friends) open(r storage.Redundancy, change ...func(*segments.Config)) *segments.Segments {
	f.t.Helper()
	cfg := segments.Config{
		Holders: f, Node: f.device.Key, Grant: func() []byte { return f.device.Grant },
		Vault: f.vault, Owner: f.device.Owner,
		Redundancy: func() storage.Redundancy { return r },
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := segments.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// by returns the friend that a holder list names for a shard.
func (f *friends) by(peer grid.PeerID) *friend {
	for _, friend := range f.list {
		if friend.peer == peer {
			return friend
		}
	}
	f.t.Fatalf("%s is no friend", peer.Short())
	return nil
}

// mustPut stores data and checks that it is complete.
func (f *friends) mustPut(s *segments.Segments, data []byte) segments.Put {
	f.t.Helper()
	put, err := s.Put(f.t.Context(), data)
	if err != nil || !put.Complete || !put.Committed {
		f.t.Fatalf("put: %+v, %v", put, err)
	}
	return put
}

// wantGet checks that the segment comes back.
func (f *friends) wantGet(s *segments.Segments, put segments.Put, data []byte) {
	f.t.Helper()
	got, err := s.Get(f.t.Context(), put.ID, segments.Hint{Header: put.Header, Holders: put.Holders})
	if err != nil || !bytes.Equal(got, data) {
		f.t.Fatalf("get: %d of %d bytes, %v", len(got), len(data), err)
	}
}

func randomBytes(n int) []byte {
	out := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rng.Read(out)
	return out
}

var (
	fourOfSix = storage.Redundancy{K: 4, N: 6}
	auto      = storage.Redundancy{}
)

// inBubble runs a test where waiting is free, and waits for every transfer to
// end.
func inBubble(t *testing.T, run func(t *testing.T)) {
	synctest.Test(t, run)
}

// took returns how long f ran.
func took(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// hanging is a store on which every call hangs until its context ends, or, when
// deaf, until the test ends.
type hanging struct {
	storage.RemoteShards
	deaf chan struct{} // nil: listens to the context
}

func (h hanging) wait(ctx context.Context) error {
	if h.deaf != nil {
		<-h.deaf
		return context.Canceled
	}
	<-ctx.Done()
	return ctx.Err()
}

func (h hanging) CreateShard(ctx context.Context, _ storage.SignedHeader, _ int, _ []storage.Holder) (storage.ShardWriter, error) {
	return nil, h.wait(ctx)
}

func (h hanging) OpenShard(ctx context.Context, _ storage.ShardID, _, _ int64) (storage.ShardReader, error) {
	return nil, h.wait(ctx)
}

func (h hanging) Have(ctx context.Context, _ []storage.SegmentID) ([]storage.SegmentAnswer, error) {
	return nil, h.wait(ctx)
}

func (h hanging) PutHeads(ctx context.Context, _ [][]byte) error { return h.wait(ctx) }

func (h hanging) Heads(ctx context.Context, _ grid.OwnerID) ([]storage.VaultHeads, error) {
	return nil, h.wait(ctx)
}

func (h hanging) HeadHistory(ctx context.Context, _ grid.OwnerID, _ storage.VaultID, _ storage.HeadCursor) ([][]byte, error) {
	return nil, h.wait(ctx)
}

func (h hanging) PutDeletions(ctx context.Context, _ [][]byte) error { return h.wait(ctx) }

func (h hanging) Prove(ctx context.Context, _ storage.ShardID, _ []int) ([][]byte, error) {
	return nil, h.wait(ctx)
}
