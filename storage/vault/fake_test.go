package vault

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/grid/identity"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/segments"
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

	trash   map[storage.SegmentID][]byte // deleted, still readable
	created map[storage.SegmentID]time.Time
	vaults  map[storage.SegmentID]storage.VaultID // whose they are; none: of the vault that asks
	silent  []grid.PeerID                         // members that do not answer Delete
	batches map[[32]byte]storage.SignedDeletion
	now     func() time.Time
}

func newFakeSegments() *fakeSegments {
	return &fakeSegments{segments: map[storage.SegmentID][]byte{}, gets: map[storage.SegmentID]int{}, survives: 2,
		trash: map[storage.SegmentID][]byte{}, vaults: map[storage.SegmentID]storage.VaultID{}, created: map[storage.SegmentID]time.Time{}, batches: map[[32]byte]storage.SignedDeletion{}, now: time.Now}
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
		f.created[id] = f.now()
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
	data, ok := f.data(id)
	if !ok {
		return nil, fmt.Errorf("segment %s: %w", id.Short(), storage.ErrTooFewShards)
	}
	f.gets[id]++
	return append(buffer[:0], data...), nil
}

func (f *fakeSegments) Range(ctx context.Context, id storage.SegmentID, holders []storage.Holder, off, n int64) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.data(id)
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
	vaults := map[storage.VaultID]*storage.VaultHeads{}
	var out []storage.VaultHeads
	for _, raw := range f.heads {
		head, err := storage.ParseHead(raw)
		if err != nil {
			return nil, err
		}
		if vaults[head.Vault] == nil {
			vaults[head.Vault] = &storage.VaultHeads{Vault: head.Vault}
		}
		vaults[head.Vault].Links = append(vaults[head.Vault].Links, raw)
	}
	for _, heads := range vaults {
		out = append(out, *heads)
	}
	return out, nil
}

// vaultSegments notes whose segments are stored.
type vaultSegments struct {
	*fakeSegments
	vault storage.VaultID
}

func (v vaultSegments) Put(ctx context.Context, data []byte) (Stored, error) {
	put, err := v.fakeSegments.Put(ctx, data)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.vaults[put.ID] = v.vault
	return put, err
}

// data returns what is stored or in the trash.
func (f *fakeSegments) data(id storage.SegmentID) ([]byte, bool) {
	if data, ok := f.segments[id]; ok {
		return data, true
	}
	data, ok := f.trash[id]
	return data, ok
}

// emptyTrash is what holders do when the floor has passed.
func (f *fakeSegments) emptyTrash() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.trash)
}

func (f *fakeSegments) HeadHistory(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) (page []storage.SignedHead, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, raw := range f.heads {
		head, err := storage.ParseHead(raw)
		if err != nil {
			return nil, err
		}
		if head.Vault == vault && head.Owner == owner && (below.IsZero() || head.Cursor().Compare(below) < 0) {
			page = append(page, head)
		}
	}
	slices.SortFunc(page, func(a, b storage.SignedHead) int { return b.Cursor().Compare(a.Cursor()) })
	return page[:min(len(page), 3)], f.check("history")
}

func (f *fakeSegments) Survey(ctx context.Context, asks []segments.Ask) ([]segments.Survey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]segments.Survey, len(asks))
	for i, ask := range asks {
		out[i] = segments.Survey{ID: ask.ID, Shards: make([][]segments.Copy, 6), All: true}
		for state, have := range map[storage.ShardState]map[storage.SegmentID][]byte{storage.ShardStored: f.segments, storage.ShardTrash: f.trash} {
			if _, ok := have[ask.ID]; ok {
				for shard := range out[i].Shards {
					out[i].Shards[shard] = []segments.Copy{{Peer: grid.PeerID{byte(shard + 1)}, State: state}}
				}
			}
		}
	}
	return out, f.check("survey")
}

func (f *fakeSegments) Delete(ctx context.Context, raw [][]byte) (acked, silent []grid.PeerID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.check("delete")); err != nil {
		return nil, nil, err
	}
	deletions, err := storage.ParseDeletions(raw)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range deletions {
		f.batches[d.ID] = d
		for _, id := range d.Segments {
			if data, ok := f.segments[id]; ok {
				f.trash[id] = data
				delete(f.segments, id)
			}
		}
	}
	return []grid.PeerID{{1}}, f.silent, f.check("deleted")
}

func (f *fakeSegments) Deletions(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, each func(storage.SignedDeletion)) (answered, members int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.check("deletions")); err != nil {
		return 0, 0, err
	}
	for _, d := range f.batches {
		if d.Owner == owner && d.Vault == vault {
			each(d)
		}
	}
	return 1, 1 + len(f.silent), nil
}

func (f *fakeSegments) List(ctx context.Context, vault storage.VaultID) iter.Seq2[storage.SegmentID, error] {
	f.mu.Lock()
	var ids []storage.SegmentID
	for id := range f.segments {
		if of, known := f.vaults[id]; !known || of == vault {
			ids = append(ids, id)
		}
	}
	f.mu.Unlock()
	return func(yield func(storage.SegmentID, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func (f *fakeSegments) Header(ctx context.Context, id storage.SegmentID) (storage.SignedHeader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.segments[id]; !ok {
		return storage.SignedHeader{}, storage.ErrNotFound
	}
	config := testConfig(f)
	vault, known := f.vaults[id]
	if !known {
		vault = storage.VaultID{7}
	}
	return storage.SignedHeader{ID: id, Header: storage.Header{Vault: vault, Owner: config.Owner, Created: f.created[id],
		Redundancy: storage.Redundancy{K: 4, N: 6}}}, nil
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

func testSecrets(t testing.TB) seal.VaultSecrets { return secretsOf(t, 7) }

func secretsOf(t testing.TB, vault byte) seal.VaultSecrets {
	secrets, err := seal.DeriveVault(make([]byte, 32), storage.VaultID{vault})
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
		Grant: func() []byte { return grant }, Floor: func() time.Duration { return time.Hour }}
}

// writeOnlyGrant is that of a device that may not delete.
func writeOnlyGrant() []byte {
	owner := ed25519.NewKeyFromSeed(make([]byte, 32))
	node := ed25519.NewKeyFromSeed(append(make([]byte, 31), 1))
	return identity.SignDelegation(owner, identity.Delegation{
		Peer: grid.PeerIDOf(node.Public().(ed25519.PublicKey)), Capabilities: grid.CapWrite, Epoch: 1, Created: time.Unix(1e9, 0),
	}).Encode()
}

func newFixture(t testing.TB) *fixture { return newFixtureOf(t, 7, newFakeSegments()) }

func newFixtureOf(t testing.TB, vault byte, segments *fakeSegments) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), segments: segments, files: diskFiles{}}
	f.config = testConfig(vaultSegments{segments, storage.VaultID{vault}})
	if err := Create(f.dir, secretsOf(t, vault)); err != nil {
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
