// Package storagetest helps to test stores of shards and heads and what is
// built on them: made-up devices that sign segments and heads, a conformance
// suite that every store passes (disk, memory, remote), a store in memory, and
// a wrapper that fails, lies and stalls on demand.
package storagetest

import (
	"crypto/ed25519"
	"math/rand/v2"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/grid/identity"
	"gotong/storage"
)

// Device is an owner with one peer that may write for it. Equal seeds make
// equal devices.
type Device struct {
	Grid  grid.GridID
	Owner grid.OwnerID
	Peer  grid.PeerID
	Key   ed25519.PrivateKey // of the peer
	Grant []byte             // encoded delegation

	ownerKey ed25519.PrivateKey
}

// NewDevice makes the device of a seed, with all capabilities and epoch 1.
func NewDevice(seed string) Device {
	d := Device{
		Grid:     blake3.Sum256([]byte("grid")),
		Key:      keyFrom("node " + seed),
		ownerKey: keyFrom("owner " + seed),
	}
	d.Owner = grid.OwnerIDOf(d.ownerKey.Public().(ed25519.PublicKey))
	d.Peer = grid.PeerIDOf(d.Key.Public().(ed25519.PublicKey))
	return d.With(grid.CapAll, 1)
}

// With returns the same device under another delegation.
func (d Device) With(capabilities grid.Capability, epoch uint32) Device {
	d.Grant = identity.SignDelegation(d.ownerKey, identity.Delegation{
		Grid: d.Grid, Peer: d.Peer, Capabilities: capabilities, Epoch: epoch, Created: time.Unix(1_700_000_000, 0),
	}).Encode()
	return d
}

func keyFrom(seed string) ed25519.PrivateKey {
	sum := blake3.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(sum[:])
}

// Segment is a header with shards that match it. The shards are random bytes,
// not a code word: stores cannot tell.
type Segment struct {
	Header storage.SignedHeader
	Shards [][]byte
}

// ID returns the id of one of its shards.
func (s Segment) ID(index int) storage.ShardID {
	return storage.ShardID{Segment: s.Header.ID, Index: index}
}

// Segment makes and signs a segment in a vault. Equal arguments make equal
// segments.
func (d Device) Segment(t testing.TB, vault storage.VaultID, r storage.Redundancy, shardBytes int, seed string) Segment {
	t.Helper()
	return d.segment(t, storage.Header{
		Vault: vault, Owner: d.Owner, Grant: d.Grant, Redundancy: r, ShardBytes: shardBytes, Floor: 7 * 24 * time.Hour,
	}, seed)
}

// JobGrant signs a job grant of d that is valid at any time of a test.
func (d Device) JobGrant(t testing.TB, job [32]byte, outputBytes int64) []byte {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	raw, err := storage.SignJobGrant(d.Key, storage.JobGrant{
		Job: job, Owner: d.Owner, Created: now, Expires: now.Add(30 * 24 * time.Hour), OutputBytes: outputBytes, Delegation: d.Grant,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// JobSegment makes a segment of the job of a grant, signed by d, which need not
// be of the job's owner. It expires with the grant.
func (d Device) JobSegment(t testing.TB, grant []byte, r storage.Redundancy, shardBytes int, seed string) Segment {
	t.Helper()
	g, err := storage.OpenJobGrant(grant)
	if err != nil {
		t.Fatal(err)
	}
	return d.segment(t, storage.Header{
		Vault: g.Job, Owner: g.Owner, Kind: storage.GrantJob, Grant: grant, Redundancy: r, ShardBytes: shardBytes, Expires: g.Expires,
	}, seed)
}

func (d Device) segment(t testing.TB, like storage.Header, seed string) Segment {
	t.Helper()
	r, shardBytes := like.Redundancy, like.ShardBytes
	rng := rand.NewChaCha8(blake3.Sum256([]byte(seed)))
	s := Segment{Shards: make([][]byte, r.N)}
	roots := make([][32]byte, r.N)
	for i := range s.Shards {
		s.Shards[i] = make([]byte, shardBytes)
		_, _ = rng.Read(s.Shards[i])
		roots[i] = blake3.Sum256(s.Shards[i])
	}
	like.Bytes, like.Roots, like.Created = r.K*shardBytes, roots, time.Unix(1_700_000_000, 0)
	header, err := storage.SignHeader(d.Key, like)
	if err != nil {
		t.Fatal(err)
	}
	s.Header = header
	return s
}

// Head signs the head that follows prev; the zero prev makes the first one.
func (d Device) Head(t testing.TB, vault storage.VaultID, prev storage.SignedHead, sealed string) storage.SignedHead {
	t.Helper()
	head, err := storage.SignHead(d.Key, storage.Head{
		Vault: vault, Owner: d.Owner, Seq: prev.Seq + 1, Prev: prev.ID, Grant: d.Grant,
		Created: time.Unix(1_700_000_000, 0), Floor: 7 * 24 * time.Hour, Sealed: []byte(sealed),
	})
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// Heads signs a chain of n heads from the first.
func (d Device) Heads(t testing.TB, vault storage.VaultID, n int) []storage.SignedHead {
	t.Helper()
	heads := make([]storage.SignedHead, n)
	var prev storage.SignedHead
	for i := range heads {
		heads[i] = d.Head(t, vault, prev, "state")
		prev = heads[i]
	}
	return heads
}

// Deletion signs a deletion of segments.
func (d Device) Deletion(t testing.TB, vault storage.VaultID, number uint64, ids ...storage.SegmentID) storage.SignedDeletion {
	t.Helper()
	deletion, err := storage.SignDeletion(d.Key, storage.Deletion{
		Vault: vault, Owner: d.Owner, Number: number, Created: time.Unix(1_700_000_000, 0), Grant: d.Grant, Segments: ids,
	})
	if err != nil {
		t.Fatal(err)
	}
	return deletion
}

// Raw returns the bytes of heads as PutHeads takes them.
func Raw(heads ...storage.SignedHead) [][]byte {
	raw := make([][]byte, len(heads))
	for i, h := range heads {
		raw[i] = h.Raw
	}
	return raw
}

// RawDeletions returns the bytes of deletions as PutDeletions takes them.
func RawDeletions(deletions ...storage.SignedDeletion) [][]byte {
	raw := make([][]byte, len(deletions))
	for i, d := range deletions {
		raw[i] = d.Raw
	}
	return raw
}

// Vault makes a vault id from a seed.
func Vault(seed string) storage.VaultID { return blake3.Sum256([]byte("vault " + seed)) }

// Peer makes a PeerID from a seed.
func Peer(seed string) grid.PeerID { return blake3.Sum256([]byte("peer " + seed)) }
