package gridtest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/grid/gridtest"
	"gotong/grid/identity"
	"gotong/grid/membership"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/shardrpc"
)

// attacker is malware with every file of an owner's machine, and code of its
// own: it speaks to friends as that machine, without any of its rules.
type attacker struct {
	t       *testing.T
	node    identity.NodeKey
	roster  *roster.Roster
	secrets seal.VaultSecrets
	owner   grid.OwnerID
	grant   []byte
	clients *peernet.Clients
	friends []grid.PeerID
	newest  storage.SignedHead
}

// breakIn takes the files of a stopped peer.
func breakIn(t *testing.T, victim *gridtest.ClusterPeer) *attacker {
	t.Helper()
	dir := filepath.Join(victim.Home, "peer")
	a := &attacker{t: t}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	a.node, err = identity.LoadNodeKey(filepath.Join(dir, "node.key"))
	must(err)
	a.roster, err = roster.Open(filepath.Join(dir, "roster"))
	must(err)
	records, err := roster.OpenRecords(filepath.Join(dir, "records"), a.roster.View().Grid())
	must(err)
	text, err := os.ReadFile(filepath.Join(dir, "vault", "secrets"))
	must(err)
	a.secrets, err = seal.ParseSecrets(text)
	must(err)
	network, err := peernet.New(peernet.Config{Node: a.node, Directory: membership.NewDirectory(a.roster, records), Fabric: victim.Host})
	must(err)
	a.clients = peernet.NewClients(network)
	self, _ := a.roster.View().Member(a.node.PeerID())
	a.owner, a.grant = self.Owner, self.Signed.Encode()
	for _, m := range a.roster.View().Members() {
		if m.ID != a.node.PeerID() {
			a.friends = append(a.friends, m.ID)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(a.clients.Close(), network.Close(), records.Close(), a.roster.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *attacker) shards(friend grid.PeerID) *shardrpc.Client {
	a.t.Helper()
	conn, err := a.clients.Conn(friend)
	if err != nil {
		a.t.Fatal(err)
	}
	return shardrpc.NewClient(conn, friend, shardrpc.ClientConfig{})
}

// each calls f with the store of every friend.
func (a *attacker) each(f func(friend *shardrpc.Client)) {
	for _, friend := range a.friends {
		f(a.shards(friend))
	}
}

// head signs the head after the newest; sealed is what it says.
func (a *attacker) head(sealed []byte) []byte {
	a.t.Helper()
	head, err := storage.SignHead(a.node.Private(), storage.Head{
		Vault: a.secrets.Vault(), Owner: a.owner, Seq: a.newest.Seq + 1, Prev: a.newest.ID, Created: time.Now().Add(1000 * time.Hour),
		Floor: 0, Grant: a.grant, Sealed: sealed,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.newest = head
	return head.Raw
}

// nothing is the state of an empty vault, as a head has it.
func (a *attacker) nothing() []byte {
	plain, err := proto.Marshal(&vaultv1.HeadState{Version: 1, NextNumber: 1000})
	if err != nil {
		a.t.Fatal(err)
	}
	padded := make([]byte, 4096-seal.Overhead)
	padded[copy(padded, plain)] = 0x80
	return a.secrets.SealIndexed(nil, "head", padded)
}

// buryHeads publishes thousands of heads that say nothing, until friends take no
// more, the last of them a valid one of an empty vault.
func (a *attacker) buryHeads(ctx context.Context, junk bool) {
	a.t.Helper()
	found, err := a.shards(a.friends[0]).Heads(ctx, a.owner)
	if err != nil || len(found) != 1 {
		a.t.Fatalf("%d vaults, %v", len(found), err)
	}
	links := found[0].Links
	if a.newest, err = storage.ParseHead(links[len(links)-1]); err != nil {
		a.t.Fatal(err)
	}
	taken := 0
	for range 12 {
		var batch [][]byte
		for range 250 {
			sealed := a.nothing()
			if junk {
				sealed = sealed[:100]
			}
			batch = append(batch, a.head(sealed))
		}
		refused := 0
		a.each(func(friend *shardrpc.Client) {
			if err := friend.PutHeads(ctx, batch); err != nil {
				refused++
			}
		})
		if refused == len(a.friends) {
			break
		}
		taken += len(batch)
	}
	if taken == 0 {
		a.t.Error("the attacker published nothing: the test proves nothing")
	}
}

// deleteAll signs deletions of all that friends keep, and tells how many friends
// took one.
func (a *attacker) deleteAll(ctx context.Context) (taken int) {
	a.t.Helper()
	ids := map[storage.SegmentID]bool{}
	a.each(func(friend *shardrpc.Client) {
		for id, err := range friend.List(ctx, a.secrets.Vault()) {
			if err != nil {
				a.t.Fatal(err)
			}
			ids[id.Segment] = true
		}
	})
	if len(ids) == 0 {
		a.t.Fatal("friends keep nothing")
	}
	for _, number := range []uint64{1, 2, 1 << 40, ^uint64(0)} {
		d := storage.Deletion{Vault: a.secrets.Vault(), Owner: a.owner, Number: number, Created: time.Unix(1, 0), Grant: a.grant}
		for id := range ids {
			d.Segments = append(d.Segments, id)
		}
		signed, err := storage.SignDeletion(a.node.Private(), d)
		if err != nil {
			return 0 // the grant does not let it expire anything
		}
		a.each(func(friend *shardrpc.Client) {
			if friend.PutDeletions(ctx, [][]byte{signed.Raw}) == nil {
				taken++
			}
		})
	}
	return taken
}

// forgeDeletion makes a deletion that is well formed and well signed, under the
// grant that the machine has, which does not let it expire anything.
func (a *attacker) forgeDeletion() []byte {
	a.t.Helper()
	stranger, err := identity.NewPhrase()
	if err != nil {
		a.t.Fatal(err)
	}
	key := stranger.OwnerKey()
	grant := identity.SignDelegation(key, identity.Delegation{Grid: a.roster.View().Grid(), Peer: a.node.PeerID(), Capabilities: grid.CapAll, Created: time.Unix(1, 0)})
	signed, err := storage.SignDeletion(a.node.Private(), storage.Deletion{
		Vault: a.secrets.Vault(), Owner: grid.OwnerIDOf(key.Public().(ed25519.PublicKey)), Number: 1, Created: time.Unix(1, 0),
		Grant: grant.Encode(), Segments: []storage.SegmentID{{1}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	body := bytes.Clone(signed.Raw[:len(signed.Raw)-ed25519.SignatureSize])
	body = bytes.Replace(body, signed.Owner[:], a.owner[:], 1)
	body = bytes.Replace(body, signed.Grant, a.grant, 1)
	again := identity.Sign(a.node.Private(), storage.DomainDeletion, body)
	return append(body, again.Signature...)
}

// litter fills the owner's quota with junk whose floor has passed at once, and
// tries to write over what is there.
func (a *attacker) litter(ctx context.Context) {
	a.t.Helper()
	a.each(func(friend *shardrpc.Client) {
		for range 20 {
			junk := make([]byte, 64<<10)
			_, _ = rand.Read(junk)
			header, err := storage.SignHeader(a.node.Private(), storage.Header{
				Vault: a.secrets.Vault(), Owner: a.owner, Grant: a.grant, Redundancy: storage.Redundancy{K: 1, N: 1},
				Bytes: len(junk), ShardBytes: len(junk), Roots: [][32]byte{blake3.Sum256(junk)}, Created: time.Unix(1, 0),
			})
			if err != nil {
				a.t.Fatal(err)
			}
			if w, err := friend.CreateShard(ctx, header, 0, nil); err == nil {
				_, _ = w.Write(junk)
				_ = w.Commit() // it may be refused
			}
		}
		for id, err := range friend.List(ctx, a.secrets.Vault()) {
			if err != nil {
				a.t.Fatal(err)
			}
			reader, err := friend.OpenShard(ctx, id, 0, 0)
			if err != nil {
				continue
			}
			header := reader.Header()
			_ = reader.Close() // nothing was read
			w, err := friend.CreateShard(ctx, header, id.Index, []storage.Holder{{Shard: id.Index, Peer: a.node.PeerID(), Epoch: 1 << 30}})
			if err == nil {
				_, _ = w.Write(make([]byte, header.ShardBytes))
				if w.Commit() == nil {
					a.t.Errorf("wrote over shard %d of %s", id.Index, id.Segment.Short())
				}
			}
		}
	})
}
