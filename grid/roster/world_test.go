package roster

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"gotong/grid"
	"gotong/grid/identity"
)

// actor is a peer that signs whatever a test wants it to, honest or not.
type actor struct {
	node  identity.NodeKey
	owner ed25519.PrivateKey
}

func (a actor) id() grid.PeerID       { return a.node.PeerID() }
func (a actor) ownerID() grid.OwnerID { return grid.OwnerIDOf(a.owner.Public().(ed25519.PublicKey)) }

func newActor(t testing.TB) actor {
	t.Helper()
	node, err := identity.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	phrase, err := identity.NewPhrase()
	if err != nil {
		t.Fatal(err)
	}
	return actor{node, phrase.OwnerKey()}
}

// device is another peer of the same owner.
func (a actor) device(t testing.TB) actor {
	t.Helper()
	return actor{newActor(t).node, a.owner}
}

// found makes a grid whose first peer is the actor.
func (a actor) found(t testing.TB) (grid.GridID, []byte) {
	t.Helper()
	g, genesis, err := signGenesis(a.owner, a.node, "test", identity.Delegation{Capabilities: grid.CapAll})
	if err != nil {
		t.Fatal(err)
	}
	return g, genesis
}

// params asks for the admission of a on an invitation of inviter.
func (a actor) params(g grid.GridID, inviter grid.PeerID) AdmitParams {
	return AdmitParams{
		PeerKey:    a.node.Public(),
		Delegation: identity.SignDelegation(a.owner, identity.Delegation{Grid: g, Peer: a.id(), Capabilities: grid.CapAll}),
		Consent:    SignConsent(a.node, Consent{Grid: g, Owner: a.ownerID(), Inviter: inviter}),
	}
}

func (a actor) signDevice(g grid.GridID) []byte {
	return SignDevice(a.owner, a.node, identity.Delegation{Grid: g, Capabilities: grid.CapAll})
}

// admits signs an admission of b at a place in a's chain.
func (a actor) admits(g grid.GridID, b actor, l link) []byte {
	return signAdmit(a.node, g, l, b.params(g, a.id()), 0)
}

// after returns the link behind a statement.
func after(raw []byte, number uint32) link { return link{number: number + 1, previous: HashOf(raw)} }

func newRosterOf(t testing.TB, a actor) *Roster {
	t.Helper()
	r, err := Create(filepath.Join(t.TempDir(), "roster"), CreateParams{
		Name: "test", OwnerKey: a.owner, Node: a.node, Delegation: identity.Delegation{Capabilities: grid.CapAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// copyOf gives another member the roster as it is now.
func copyOf(t testing.TB, r *Roster) *Roster {
	t.Helper()
	c, err := Import(filepath.Join(t.TempDir(), "roster"), r.View().Grid(), r.All())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// sync exchanges what either lacks.
func sync2(t testing.TB, a, b *Roster) {
	t.Helper()
	if _, err := a.Merge(b.Missing(a.Hashes())); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Merge(a.Missing(b.Hashes())); err != nil {
		t.Fatal(err)
	}
	if a.Digest() != b.Digest() || describe(a.View()) != describe(b.View()) {
		t.Fatalf("after the exchange they differ:\n%s\n%s", describe(a.View()), describe(b.View()))
	}
}

func admit(t testing.TB, r *Roster, by, who actor) {
	t.Helper()
	if err := r.Admit(by.node, who.params(r.View().Grid(), by.id())); err != nil {
		t.Fatal(err)
	}
}

// describe writes down everything that a view decides.
func describe(v *View) string {
	var b strings.Builder
	fmt.Fprintln(&b, v.Grid(), v.Name())
	for _, m := range v.Members() {
		fmt.Fprintln(&b, m.ID.Short(), m.Owner.Short(), m.Admin, m.Forked, m.InvitedBy.Short(), m.Delegation.Epoch, m.Signed.Signature[:4])
		p := v.out.peers[m.ID]
		fmt.Fprintln(&b, "  ", p.depth, p.epoch(), p.last(p.epoch()).number)
	}
	for _, o := range v.Owners() {
		fmt.Fprintln(&b, o.ID.Short(), o.Admin, o.Genesis, len(o.Peers))
	}
	for _, id := range v.Removed() {
		fmt.Fprintln(&b, "removed", id.Short())
	}
	return b.String()
}

func wantStatus(t testing.TB, v *View, who actor, want Status) {
	t.Helper()
	if got := v.Status(who.id()); got != want {
		t.Errorf("peer %s is %s, want %s", who.id().Short(), got, want)
	}
}

func mustEvaluate(t testing.TB, g grid.GridID, statements ...[]byte) *View {
	t.Helper()
	v, err := Evaluate(g, statements)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
