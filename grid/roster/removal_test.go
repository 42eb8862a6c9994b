package roster

import (
	"errors"
	"testing"

	"gotong/grid"
	"gotong/grid/identity"
)

func TestRemovedAuthorCannotBackDate(t *testing.T) {
	ann, bob, cat, late := newActor(t), newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	admit(t, r, ann, bob)
	one := bob.admits(g, cat, link{number: 1})
	if _, err := r.Merge([][]byte{one}); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ann.node, RemoveParams{Peer: bob.id()}); err != nil {
		t.Fatal(err)
	}
	// Neither a further statement nor a fork of an old one changes anything.
	further := bob.admits(g, late, after(one, 1))
	fork := bob.admits(g, late, link{number: 1})
	if _, err := r.Merge([][]byte{further, fork}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.View(), late, StatusUnknown)
	wantStatus(t, r.View(), cat, StatusActive)
	wantPaths(t, r.View())
}

func TestTwoRemovalsLowerCounts(t *testing.T) {
	ann, phone, bob := newActor(t), actor{}, newActor(t)
	phone = ann.device(t)
	cat, dan := newActor(t), newActor(t)
	g, genesis := ann.found(t)
	base := [][]byte{genesis, phone.signDevice(g)}
	admitBob := ann.admits(g, bob, link{number: 1})
	one := bob.admits(g, cat, link{number: 1})
	two := bob.admits(g, dan, after(one, 1))
	high := signRemove(ann.node, g, after(admitBob, 1), removal{peer: bob.id(), cuts: map[grid.PeerID]cut{bob.id(): {number: 2, hash: HashOf(two)}}})
	low := signRemove(phone.node, g, link{number: 1}, removal{peer: bob.id(), cuts: map[grid.PeerID]cut{bob.id(): {number: 1, hash: HashOf(one)}}})
	for _, order := range [][][]byte{{high, low}, {low, high}} {
		v := mustEvaluate(t, g, append(append(append([][]byte(nil), base...), admitBob, one, two), order...)...)
		wantStatus(t, v, bob, StatusRemoved)
		wantStatus(t, v, cat, StatusActive)
		wantStatus(t, v, dan, StatusUnknown)
	}
}

func TestWhoMayRemove(t *testing.T) {
	ann, bob, cat, dan := newActor(t), newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	admit(t, r, ann, bob)
	admit(t, r, bob, cat)
	admit(t, r, ann, dan)
	refused := map[string]struct {
		by actor
		p  RemoveParams
	}{
		"neither admin nor inviter": {dan, RemoveParams{Peer: cat.id()}},
		"invitee":                   {cat, RemoveParams{Peer: bob.id()}},
		"founder's peer":            {bob, RemoveParams{Peer: ann.id()}},
		"founder":                   {bob, RemoveParams{Owner: ann.ownerID()}},
		"owner, by another":         {dan, RemoveParams{Owner: cat.ownerID()}},
	}
	for name, c := range refused {
		if err := r.Remove(c.by.node, c.p); !errors.Is(err, ErrNotAdmin) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Remove(ann.node, RemoveParams{Peer: newActor(t).id()}); !errors.Is(err, grid.ErrUnknownPeer) {
		t.Errorf("unknown peer: %v", err)
	}
	if err := r.Remove(ann.node, RemoveParams{}); err == nil {
		t.Error("nobody was removed without an error")
	}
	if err := r.Remove(bob.node, RemoveParams{Owner: cat.ownerID()}); err != nil { // the inviter
		t.Error(err)
	}
	if err := r.Remove(dan.node, RemoveParams{Peer: dan.id()}); err != nil { // itself
		t.Error(err)
	}
	if err := r.Remove(ann.node, RemoveParams{Peer: cat.id()}); err != nil { // gone already
		t.Error(err)
	}
	wantStatus(t, r.View(), cat, StatusRemoved)
	wantStatus(t, r.View(), dan, StatusRemoved)
}

// TestForgedRemovalsDoNotCount is TestWhoMayRemove past the author's own check.
func TestForgedRemovalsDoNotCount(t *testing.T) {
	ann, bob, dan := newActor(t), newActor(t), newActor(t)
	g, genesis := ann.found(t)
	one := ann.admits(g, bob, link{number: 1})
	two := ann.admits(g, dan, after(one, 1))
	for _, r := range []removal{
		{peer: ann.id()}, {owner: ann.ownerID()}, {peer: bob.id()}, {owner: bob.ownerID()},
	} {
		v := mustEvaluate(t, g, genesis, one, two, signRemove(dan.node, g, link{number: 1}, r))
		for _, a := range []actor{ann, bob, dan} {
			wantStatus(t, v, a, StatusActive)
		}
	}
	// Admitting bob once more does not make dan his inviter.
	again := signAdmit(dan.node, g, link{number: 1}, bob.params(g, ann.id()), 0)
	grab := signRemove(dan.node, g, after(again, 1), removal{peer: bob.id()})
	wantStatus(t, mustEvaluate(t, g, genesis, one, two, again, grab), bob, StatusActive)
}

// TestOwnersAreNotRemovedByTheirOwnPeers: whoever has a peer of an owner cannot
// shut out the person.
func TestOwnersAreNotRemovedByTheirOwnPeers(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	admit(t, r, ann, bob)
	for _, who := range []actor{ann, bob} {
		if err := r.Remove(who.node, RemoveParams{Owner: who.ownerID()}); !errors.Is(err, ErrNotAdmin) {
			t.Errorf("an owner removed by its own peer: %v", err)
		}
	}
	if err := r.Remove(ann.node, RemoveParams{Peer: ann.id()}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.View(), ann, StatusRemoved)
	if _, err := r.Merge([][]byte{ann.device(t).signDevice(r.View().Grid())}); err != nil {
		t.Fatal(err)
	}
	if owners := r.View().Owners(); len(owners) != 2 {
		t.Errorf("%d owners", len(owners))
	}
}

// TestRecoveredDeviceStands: a lost device removes neither the one that its
// owner brought in later, nor, without the capability admin, anybody that it
// invited; the later one removes it.
func TestRecoveredDeviceStands(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	admit(t, r, ann, bob)
	g := r.View().Grid()
	weak := bob.device(t)
	if _, err := r.Merge([][]byte{SignDevice(weak.owner, weak.node, identity.Delegation{Grid: g, Capabilities: grid.CapWrite})}); err != nil {
		t.Fatal(err)
	}
	admit(t, r, weak, cat)
	newer := ann.device(t)
	if _, err := r.Merge([][]byte{SignDevice(newer.owner, newer.node, identity.Delegation{Grid: g, Capabilities: grid.CapAll, Epoch: 1})}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ by, who actor }{{weak, cat}, {weak, bob}, {ann, newer}} {
		if err := r.Remove(c.by.node, RemoveParams{Peer: c.who.id()}); !errors.Is(err, ErrNotAdmin) {
			t.Errorf("removed by one who may not: %v", err)
		}
	}
	if err := r.Remove(newer.node, RemoveParams{Peer: ann.id()}); err != nil {
		t.Fatal(err)
	}
	newest, ok := r.View().NewestDelegation(ann.ownerID())
	if d, _, err := identity.OpenDelegation(newest); !ok || err != nil || d.Epoch != 1 || d.Peer != newer.id() {
		t.Errorf("newest delegation %+v, %v", d, err)
	}
}

func TestAdmins(t *testing.T) {
	ann, bob, cat, dan := newActor(t), newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	p := bob.params(g, ann.id())
	p.GrantAdmin = true
	if err := r.Admit(ann.node, p); err != nil {
		t.Fatal(err)
	}
	admit(t, r, ann, cat)
	admit(t, r, cat, dan)
	if !r.View().IsAdmin(bob.id()) || r.View().IsAdmin(cat.id()) {
		t.Error("admin rights are not as given")
	}
	q := newActor(t).params(g, cat.id())
	q.GrantAdmin = true
	if err := r.Admit(cat.node, q); !errors.Is(err, ErrNotAdmin) {
		t.Errorf("a plain member makes an admin: %v", err)
	}
	sneaky := newActor(t)
	sp := sneaky.params(g, cat.id())
	sp.GrantAdmin = true
	at := r.View().out.peers[cat.id()].last(0)
	if _, err := r.Merge([][]byte{signAdmit(cat.node, g, link{number: at.number + 1, previous: at.hash}, sp, 0)}); err != nil {
		t.Fatal(err)
	}
	if r.View().IsAdmin(sneaky.id()) {
		t.Error("a plain member made an admin")
	}
	if err := r.Remove(bob.node, RemoveParams{Peer: dan.id()}); err != nil {
		t.Error(err)
	}
}

// TestAdminsRemoveEachOther: the one nearer to the founder wins, everywhere.
func TestAdminsRemoveEachOther(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	g, genesis := ann.found(t)
	bp, cp := bob.params(g, ann.id()), cat.params(g, bob.id())
	bp.GrantAdmin, cp.GrantAdmin = true, true
	admitBob := signAdmit(ann.node, g, link{number: 1}, bp, 0)
	admitCat := signAdmit(bob.node, g, link{number: 1}, cp, 0)
	bobSays := signRemove(bob.node, g, after(admitCat, 1), removal{peer: cat.id()})
	catSays := signRemove(cat.node, g, link{number: 1}, removal{peer: bob.id()})
	v := mustEvaluate(t, g, catSays, bobSays, admitCat, admitBob, genesis)
	wantStatus(t, v, bob, StatusActive)
	wantStatus(t, v, cat, StatusRemoved)
}
