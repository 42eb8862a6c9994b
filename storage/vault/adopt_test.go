package vault

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/storage"
)

// commitHost makes a snapshot whose host is name.
func (f *fixture) commitHost(name string) {
	f.t.Helper()
	s, err := f.v.Begin(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := s.Commit(Snapshot{Host: name, Created: time.Now()}); err != nil {
		f.t.Fatal(err)
	}
}

// takeOver is that of another node of the owner, under a delegation of epoch.
func (f *fixture) takeOver(epoch uint32) TakeOver {
	owner := ed25519.NewKeyFromSeed(make([]byte, 32))
	node := ed25519.NewKeyFromSeed(append(make([]byte, 31), 2))
	return TakeOver{Node: node, Owner: f.config.Owner, Floor: time.Hour, Links: f.segments.heads,
		Grant: identity.SignDelegation(owner, identity.Delegation{
			Peer: grid.PeerIDOf(node.Public().(ed25519.PublicKey)), Capabilities: grid.CapAll, Epoch: epoch, Created: time.Unix(1e9, 0),
		}).Encode()}
}

// TestAdopt: another device continues a vault from its heads alone, with all its
// snapshots; the chain goes on without a gap under the higher epoch.
func TestAdopt(t *testing.T) {
	f := newFixture(t)
	f.commitHost("one")
	f.commitHost("two")
	state, err := Describe(t.Context(), f.segments, testSecrets(t), f.v.Head())
	if err != nil || len(state.Snapshots) != 2 || state.Snapshots[1].Host != "two" || state.Unopened != 0 {
		t.Errorf("described as %+v, %v", state, err)
	}
	old := f.v.Head()
	if err := Adopt(t.TempDir(), testSecrets(t), f.takeOver(1)); !errors.Is(err, storage.ErrStaleEpoch) {
		t.Errorf("under the same epoch: %v", err)
	}
	f.close()
	take := f.takeOver(2)
	f.dir = t.TempDir()
	if err := Adopt(f.dir, testSecrets(t), take); err != nil {
		t.Fatal(err)
	}
	f.config.Node, f.config.Grant = take.Node, func() []byte { return take.Grant }
	f.open()
	if head := f.v.Head(); !head.Follows(old) || head.Epoch != 2 {
		t.Errorf("head %d of epoch %d after %d", head.Seq, head.Epoch, old.Seq)
	}
	f.commitHost("three")
	list, err := f.v.Snapshots(t.Context())
	if err != nil || len(list) != 3 || list[0].Host != "one" || list[2].Host != "three" {
		t.Errorf("snapshots %+v, %v", list, err)
	}
	if err := Adopt(f.dir, testSecrets(t), take); !errors.Is(err, ErrExists) {
		t.Errorf("over another vault: %v", err)
	}
}

// TestAdoptLeavesNumbers: a head that says that all numbers of deletions are used
// up does not keep whoever takes the vault over from deleting.
func TestAdoptLeavesNumbers(t *testing.T) {
	f := newFixture(t)
	f.commitHost("one")
	state, err := openHeadState(testSecrets(t), f.v.Head().Sealed)
	if err != nil {
		t.Fatal(err)
	}
	state.Deletions = ^uint64(0)
	head, err := f.v.appendHead(state)
	if err != nil {
		t.Fatal(err)
	}
	f.segments.heads = append(f.segments.heads, head.Raw)
	dir := t.TempDir()
	if err := Adopt(dir, testSecrets(t), f.takeOver(2)); err != nil {
		t.Fatal(err)
	}
	adopted, err := openHeads(dir+"/heads", testSecrets(t).Vault(), diskFiles{})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := openHeadState(testSecrets(t), adopted.newest().Sealed); err != nil || state.Deletions != maxAdoptedDeletion {
		t.Errorf("%d deletions, %v", state.GetDeletions(), err)
	}
}

// TestAdoptOlderState: the state of an older head comes back, above newer heads
// that say nothing.
func TestAdoptOlderState(t *testing.T) {
	f := newFixture(t)
	f.commitHost("one")
	good := f.v.Head()
	for range 3 { // heads of somebody who has the node key, and no wish to be read
		last := f.v.Head()
		head, err := storage.SignHead(f.config.Node, storage.Head{Vault: last.Vault, Owner: last.Owner, Seq: last.Seq + 1, Prev: last.ID,
			Created: time.Now(), Floor: time.Hour, Grant: f.config.Grant(), Sealed: []byte("junk")})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.v.heads.append(head); err != nil {
			t.Fatal(err)
		}
		f.segments.heads = append(f.segments.heads, head.Raw)
	}
	bad := f.v.Head()
	if _, err := Describe(t.Context(), f.segments, testSecrets(t), bad); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("a head that says nothing: %v", err)
	}
	f.close()
	take := f.takeOver(2)
	if err := Adopt(t.TempDir(), testSecrets(t), take); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("adopted at a head that says nothing: %v", err)
	}
	take.State = good
	f.dir = t.TempDir()
	if err := Adopt(f.dir, testSecrets(t), take); err != nil {
		t.Fatal(err)
	}
	f.config.Node, f.config.Grant = take.Node, func() []byte { return take.Grant }
	f.open()
	list, err := f.v.Snapshots(t.Context())
	if err != nil || len(list) != 1 || !f.v.Head().Follows(bad) {
		t.Errorf("snapshots %+v, %v", list, err)
	}
	f.commitHost("two")
}

// TestBogusSnapshots: a record that nobody can open, in the catalogue of whoever
// had the device, hides none of the others.
func TestBogusSnapshots(t *testing.T) {
	f := newFixture(t)
	f.commitHost("one")
	s, err := f.v.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	record := []byte("junk")
	err = f.v.publish(t.Context(), s.put, change{add: &entry{id: snapshotIDOf(record), record: record}, newest: func([]entry) time.Time { return time.Now() }})
	if err != nil {
		t.Fatal(err)
	}
	s.Abort()
	f.commitHost("two")
	list, err := f.v.Snapshots(t.Context())
	if err != nil || len(list) != 2 || list[1].Host != "two" {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
	state, err := Describe(t.Context(), f.segments, testSecrets(t), f.v.Head())
	if err != nil || len(state.Snapshots) != 2 || state.Unopened != 1 {
		t.Errorf("described %d and %d, %v", len(state.Snapshots), state.Unopened, err)
	}
}
