package vault

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/storage"
	"gotong/storage/seal"
)

var errFault = errors.New("fault")

// fakeSegments keeps segments in memory. Every operation passes fault first.
type fakeSegments struct {
	mu       sync.Mutex
	segments map[storage.SegmentID][]byte
	heads    [][]byte
	gets     map[storage.SegmentID]int
	ranges   int
	fault    func(op string) error
	survives int
	discard  bool // keep nothing, for measuring
}

func newFakeSegments() *fakeSegments {
	return &fakeSegments{segments: map[storage.SegmentID][]byte{}, gets: map[storage.SegmentID]int{}, survives: 2}
}

func (f *fakeSegments) check(op string) error {
	if f.fault == nil {
		return nil
	}
	return f.fault(op)
}

func (f *fakeSegments) Put(ctx context.Context, data []byte) (Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.check("put")); err != nil {
		return Stored{}, err
	}
	id := storage.SegmentID(blake3.Sum256(data))
	if !f.discard {
		f.segments[id] = slices.Clone(data)
	}
	r := storage.Redundancy{K: 4, N: 6}
	return Stored{ID: id, Redundancy: r, ShardBytes: (len(data) + 3) / 4, Committed: true, Complete: true, SurvivesSites: f.survives,
		Holders: []storage.Holder{{Shard: 0, Peer: grid.PeerID{1}}, {Shard: 5, Peer: grid.PeerID{2}}}}, f.check("put done")
}

func (f *fakeSegments) Get(ctx context.Context, id storage.SegmentID, holders []storage.Holder, buffer []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.check("get")); err != nil {
		return nil, err
	}
	data, ok := f.segments[id]
	if !ok {
		return nil, fmt.Errorf("segment %s: %w", id.Short(), storage.ErrTooFewShards)
	}
	f.gets[id]++
	return append(buffer[:0], data...), nil
}

func (f *fakeSegments) Range(ctx context.Context, id storage.SegmentID, holders []storage.Holder, off, n int64) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.segments[id]
	if err := errors.Join(ctx.Err(), f.check("range")); err != nil || !ok || off+n > int64(len(data)) {
		return nil, errors.Join(err, storage.ErrNotFound)
	}
	f.ranges++
	return slices.Clone(data[off : off+n]), nil
}

func (f *fakeSegments) PublishHeads(ctx context.Context, raw [][]byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("publish"); err != nil {
		return 0, err
	}
	for _, link := range raw {
		if !slices.ContainsFunc(f.heads, func(have []byte) bool { return string(have) == string(link) }) {
			f.heads = append(f.heads, slices.Clone(link))
		}
	}
	return 2, nil
}

func (f *fakeSegments) FindHeads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("find heads"); err != nil || len(f.heads) == 0 {
		return nil, err
	}
	head, err := storage.ParseHead(f.heads[len(f.heads)-1])
	return []storage.VaultHeads{{Vault: head.Vault, Links: f.heads}}, err
}

func (f *fakeSegments) bytes() (total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, data := range f.segments {
		total += len(data)
	}
	return total
}

// fixture is a vault on a fake network.
type fixture struct {
	t        testing.TB
	dir      string
	segments *fakeSegments
	config   Config
	files    files
	v        *Vault
}

func testSecrets(t testing.TB) seal.VaultSecrets {
	secrets, err := seal.DeriveVault(make([]byte, 32), storage.VaultID{7})
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

func testConfig(segments Segments) Config {
	owner := ed25519.NewKeyFromSeed(make([]byte, 32))
	node := ed25519.NewKeyFromSeed(append(make([]byte, 31), 1))
	grant := identity.SignDelegation(owner, identity.Delegation{
		Peer: grid.PeerIDOf(node.Public().(ed25519.PublicKey)), Capabilities: grid.CapAll, Epoch: 1, Created: time.Unix(1e9, 0),
	}).Encode()
	return Config{Segments: segments, Node: node, Owner: grid.OwnerIDOf(owner.Public().(ed25519.PublicKey)),
		Grant: func() []byte { return grant }, Floor: time.Hour}
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), segments: newFakeSegments(), files: diskFiles{}}
	f.config = testConfig(f.segments)
	if err := Create(f.dir, testSecrets(t)); err != nil {
		t.Fatal(err)
	}
	f.open()
	t.Cleanup(f.close)
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	v, err := open(f.dir, f.config, f.files)
	if err != nil {
		f.t.Fatal(err)
	}
	f.v = v
}

func (f *fixture) close() {
	if f.v != nil {
		if err := f.v.Close(); err != nil {
			f.t.Error(err)
		}
		f.v = nil
	}
}

func (f *fixture) reopen() {
	f.close()
	f.open()
}
