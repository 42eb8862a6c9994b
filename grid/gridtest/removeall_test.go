package gridtest_test

import (
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gotong/grid"
	"gotong/grid/gridtest"
	"gotong/grid/identity"
	"gotong/grid/node"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
	gridv1 "gotong/proto/grid/v1"
	"gotong/storage/shardrpc"
)

// TestAttackerRemovesEverybody: malware with all files of an admin's machine
// removes every friend and the owner's other device, and everybody hears of it.
// The phrase and one friend bring back all members and every snapshot; a friend
// that was off comes later, with another address, and so does one that started
// anew as a removed peer.
func TestAttackerRemovesEverybody(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 5}, removeAll)
}

func removeAll(t *testing.T, c *gridtest.Cluster) {
	you := c.Peers[0]
	var texts, ids, dirs []string
	for i := range 2 {
		texts = append(texts, strings.Repeat("state "+strconv.Itoa(i)+" ", 50_000))
		dirs = append(dirs, source(t, texts[i], "same everywhere"))
		s, err := backupOf(t, you, dirs[i])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.Snapshot)
	}
	you.Stop()
	a := breakIn(t, you)
	a.deleteAll(t.Context())
	a.removeAll()
	friends := c.Peers[1:]
	c.Wait("every friend believes it", func() bool {
		for _, friend := range friends {
			if friend.Alive() != 0 {
				return false
			}
		}
		return true
	})
	sleeper, restarted := friends[2], friends[3]
	sleeper.Stop()
	restarted.Stop()
	sleeper.Host.Move()

	// Without the flag nothing is undone, and nobody is left to recover from.
	var asked []node.DoubtfulDevice
	if _, _, err := c.Recover(you.Phrase, friends[0], undoing(&asked, false)); !errors.Is(err, errNeeded) {
		t.Fatalf("recovered though everybody is removed: %v", err)
	}
	if len(asked) != 1 || asked[0].Device != you.ID || len(asked[0].Removals) != 4 || asked[0].Removals[0].When.IsZero() {
		t.Fatalf("asked about %+v", asked)
	}
	fresh, found, err := c.Recover(you.Phrase, friends[0], undoing(&asked, true))
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Undone) != 1 || len(found.Dropped) != 0 || found.Answered < 2 || !found.Vaults[0].Removed {
		t.Errorf("found %+v", found)
	}
	c.WaitAlive(3)
	for i, id := range ids {
		target := t.TempDir()
		if _, err := restoreOf(t, fresh, id, target); err != nil {
			t.Errorf("snapshot %d: %v", i, err)
			continue
		}
		wantFile(t, target, dirs[i], "a", texts[i])
		wantFile(t, target, dirs[i], "b", "same everywhere")
	}
	for _, late := range []*gridtest.ClusterPeer{restarted, sleeper} {
		late.AwaitMembership()
		late.Start()
	}
	c.WaitAlive(5)
	for _, p := range c.Peers[1:] {
		for _, other := range p.Peers(t.Context(), true) {
			if other.Id == you.ID.String() && other.State != string(grid.StateRemoved) {
				t.Errorf("%s sees the lost device as %s", p.Name, other.State)
			}
		}
	}
	a.each(func(friend *shardrpc.Client) {
		if _, err := friend.Heads(t.Context(), a.owner); err == nil {
			t.Error("a friend still talks to the lost device")
		}
	})
	if _, err := backupOf(t, fresh, dirs[0]); err != nil {
		t.Error(err)
	}
}

// TestAttackerRemovesTheOwner: malware on the machine of an admin who is not the
// founder lets in a stooge, which removes that owner. The phrase beats it. It
// does not beat the founder, who throws the owner out later.
func TestAttackerRemovesTheOwner(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4, Admins: true}, func(t *testing.T, c *gridtest.Cluster) {
		victim, friend := c.Peers[1], c.Peers[2]
		dir := source(t, strings.Repeat("text ", 50_000))
		if _, err := backupOf(t, victim, dir); err != nil {
			t.Fatal(err)
		}
		victim.Stop()
		a := breakIn(t, victim)
		a.removeOwner(friend.ID)
		c.Wait("friends believe it", func() bool {
			return friend.Alive() == 0 && c.Peers[0].Alive() == 2 && c.Peers[3].Alive() == 2
		})
		if _, _, err := c.Recover(victim.Phrase, friend, nil); err == nil {
			t.Fatal("recovered though the owner is removed")
		}
		var asked []node.DoubtfulDevice
		fresh, found, err := c.Recover(victim.Phrase, friend, undoing(&asked, true))
		if err != nil {
			t.Fatal(err)
		}
		if len(asked) != 1 || len(asked[0].Removals) != 2 || asked[0].Removals[1].Through == "" && asked[0].Removals[0].Through == "" {
			t.Errorf("asked about %+v", asked)
		}
		if found.Answered != 3 {
			t.Errorf("%d friends answered", found.Answered)
		}
		c.WaitAlive(4)
		target := t.TempDir()
		if _, err := restoreOf(t, fresh, "latest", target); err != nil {
			t.Fatal(err)
		}
		wantFile(t, target, dir, "a", strings.Repeat("text ", 50_000))

		if _, err := c.Peers[0].Remove(t.Context(), &controlv1.RemoveRequest{Peer: fresh.ID.String(), Owner: true}); err != nil {
			t.Fatal(err)
		}
		c.Wait("the owner is out", func() bool { return friend.Alive() == 3 })
		fresh.Stop()
		if _, _, err := c.Recover(victim.Phrase, friend, undoing(&asked, true)); err == nil {
			t.Error("the phrase beats the founder")
		}
	})
}

var errNeeded = errors.New("nobody is left without it")

// undoing takes all back, or nothing, and notes what it was asked about.
func undoing(asked *[]node.DoubtfulDevice, yes bool) func(*node.RecoverParams) {
	return func(p *node.RecoverParams) {
		p.Undo = func(found []node.DoubtfulDevice, needed bool) (chosen []grid.PeerID, err error) {
			*asked = found
			if !yes && needed {
				return nil, errNeeded
			}
			for _, d := range found {
				chosen = append(chosen, d.Device)
			}
			return chosen, nil
		}
	}
}

// signed is a copy of the roster into which the attacker writes.
func (a *attacker) signed() *roster.Roster {
	a.t.Helper()
	r, err := roster.Import(filepath.Join(a.t.TempDir(), "roster"), a.roster.View().Grid(), a.roster.All())
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { r.Close() })
	return r
}

// removeOwner lets in a stooge as an admin, which removes the attacked owner;
// the device itself removes one friend.
func (a *attacker) removeOwner(friend grid.PeerID) {
	a.t.Helper()
	r := a.signed()
	g := r.View().Grid()
	node, err := identity.NewNodeKey()
	if err != nil {
		a.t.Fatal(err)
	}
	phrase, err := identity.NewPhrase()
	if err != nil {
		a.t.Fatal(err)
	}
	key := phrase.OwnerKey()
	stooge := roster.AdmitParams{
		PeerKey: node.Public(), GrantAdmin: true,
		Delegation: identity.SignDelegation(key, identity.Delegation{Grid: g, Peer: node.PeerID(), Capabilities: grid.CapAll}),
		Consent: roster.SignConsent(node, roster.Consent{Grid: g, Owner: grid.OwnerIDOf(key.Public().(ed25519.PublicKey)),
			Inviter: a.node.PeerID()}),
	}
	if err := errors.Join(r.Admit(a.node, stooge), r.Remove(a.node, roster.RemoveParams{Peer: friend}),
		r.Remove(node, roster.RemoveParams{Owner: a.owner})); err != nil {
		a.t.Fatal(err)
	}
	a.spread(r)
}

// removeAll signs the removal of every friend and gives it to all of them.
func (a *attacker) removeAll() {
	a.t.Helper()
	signed := a.signed()
	for i, friend := range a.friends {
		p := roster.RemoveParams{Peer: friend}
		if m, _ := signed.View().Member(friend); i%2 == 1 {
			p = roster.RemoveParams{Owner: m.Owner}
		}
		if err := signed.Remove(a.node, p); err != nil {
			a.t.Fatal(err)
		}
	}
	a.spread(signed)
}

// spread gives a roster to every friend.
func (a *attacker) spread(signed *roster.Roster) {
	a.t.Helper()
	for _, friend := range a.friends {
		conn, err := a.clients.Conn(friend)
		if err != nil {
			a.t.Fatal(err)
		}
		// The answer is cut when the attacker's own owner is removed by it.
		_, _ = gridv1.NewGridClient(conn).Offer(a.t.Context(), &gridv1.OfferRequest{Statements: signed.All()})
	}
}
