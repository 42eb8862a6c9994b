package roster

import (
	"errors"
	"testing"

	"gotong/grid"
	"gotong/grid/identity"
)

func TestJoinAndRemove(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	changed := r.Changed()
	admit(t, r, ann, bob)
	select {
	case <-changed:
	default:
		t.Error("no notice of the change")
	}
	atBob := copyOf(t, r)
	admit(t, atBob, bob, cat)
	sync2(t, r, atBob)
	if m, ok := r.View().Member(cat.id()); !ok || m.InvitedBy != bob.id() || m.Owner != cat.ownerID() || m.Admin {
		t.Errorf("member %+v", m)
	}
	if !r.View().IsAdmin(ann.id()) || len(r.View().Owners()) != 3 {
		t.Error("the founder is no admin, or an owner is missing")
	}
	if err := r.Remove(ann.node, RemoveParams{Peer: bob.id()}); err != nil {
		t.Fatal(err)
	}
	sync2(t, r, atBob)
	wantStatus(t, atBob.View(), bob, StatusRemoved)
	wantStatus(t, atBob.View(), cat, StatusActive) // bob's word from before keeps counting
	if err := atBob.Admit(bob.node, newActor(t).params(r.View().Grid(), bob.id())); !errors.Is(err, ErrAuthor) {
		t.Errorf("a removed peer admits: %v", err)
	}
	if err := r.Admit(ann.node, bob.params(r.View().Grid(), ann.id())); !errors.Is(err, grid.ErrRemoved) {
		t.Errorf("re-admission of a removed peer: %v", err)
	}
}

func TestAdmitTwiceWritesOnce(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	admit(t, r, ann, bob)
	digest := r.Digest()
	admit(t, r, ann, bob)
	if r.Digest() != digest {
		t.Error("a second admission was written")
	}
}

func TestAdmitRefusesForeignPapers(t *testing.T) {
	ann, bob, eve := newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	good, evil := bob.params(g, ann.id()), eve.params(g, ann.id())
	cases := map[string]AdmitParams{
		"key":        {PeerKey: eve.node.Public(), Delegation: good.Delegation, Consent: good.Consent},
		"delegation": {PeerKey: good.PeerKey, Delegation: evil.Delegation, Consent: good.Consent},
		"consent":    {PeerKey: good.PeerKey, Delegation: good.Delegation, Consent: evil.Consent},
		"grid":       bob.params(grid.GridID{7}, ann.id()),
		"empty":      {},
		"other owner": {PeerKey: good.PeerKey, Consent: good.Consent, // eve claims bob's peer
			Delegation: identity.SignDelegation(eve.owner, identity.Delegation{Grid: g, Peer: bob.id()})},
		"signature": {PeerKey: good.PeerKey, Consent: good.Consent,
			Delegation: identity.Signed{Key: good.Delegation.Key, Signature: evil.Delegation.Signature, Body: good.Delegation.Body}},
	}
	for name, p := range cases {
		if err := r.Admit(ann.node, p); err == nil {
			t.Errorf("%s: admitted", name)
		}
	}
	if len(r.Hashes()) != 1 {
		t.Error("something was written")
	}
}

func TestDevices(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	phone, lost := ann.device(t), bob.device(t)
	stranger := newActor(t)
	if added, err := r.Merge([][]byte{phone.signDevice(g), stranger.signDevice(g)}); added != 1 || err != nil {
		t.Fatalf("merged %d: %v", added, err)
	}
	wantStatus(t, r.View(), phone, StatusActive)
	wantStatus(t, r.View(), stranger, StatusUnknown)
	if !r.View().IsAdmin(phone.id()) {
		t.Error("the founder's second device is no admin")
	}
	admit(t, r, ann, bob)
	// A lost machine is removed; its owner is still a member and recovers.
	if err := r.Remove(ann.node, RemoveParams{Peer: bob.id()}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Merge([][]byte{lost.signDevice(g)}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.View(), lost, StatusActive)
	// A removed owner does not.
	if err := r.Remove(ann.node, RemoveParams{Owner: bob.ownerID()}); err != nil {
		t.Fatal(err)
	}
	again := bob.device(t)
	if _, err := r.Merge([][]byte{again.signDevice(g)}); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []actor{bob, lost, again} {
		wantStatus(t, r.View(), gone, StatusRemoved)
	}
	if r.View().OwnerStatus(bob.ownerID()) != StatusRemoved {
		t.Error("the owner is not removed")
	}
}

func TestForkAndReadmission(t *testing.T) {
	ann, bob, cat, dan, eli := newActor(t), newActor(t), newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	admit(t, r, ann, bob)
	first := bob.admits(g, cat, link{number: 1})
	left, right := bob.admits(g, dan, after(first, 1)), bob.admits(g, eli, after(first, 1))
	if _, err := r.Merge([][]byte{first, left}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.View(), dan, StatusActive)
	if _, err := r.Merge([][]byte{right}); err != nil {
		t.Fatal(err)
	}
	v := r.View()
	if !v.Forked(bob.id()) {
		t.Error("the fork is not shown")
	}
	wantStatus(t, v, cat, StatusActive)
	wantStatus(t, v, dan, StatusUnknown)
	wantStatus(t, v, eli, StatusUnknown)
	if err := r.Admit(bob.node, dan.params(g, bob.id())); !errors.Is(err, ErrForked) {
		t.Errorf("a forked author writes: %v", err)
	}
	admit(t, r, ann, bob)
	if r.View().Forked(bob.id()) {
		t.Error("still forked after the new admission")
	}
	admit(t, r, bob, dan)
	wantStatus(t, r.View(), dan, StatusActive)
	wantStatus(t, r.View(), eli, StatusUnknown)
	wantPaths(t, r.View())
}

// TestOwnEpochIsRefused: nobody but another member may start a new chain.
func TestOwnEpochIsRefused(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	g, genesis := ann.found(t)
	v := mustEvaluate(t, g, genesis, ann.admits(g, bob, link{number: 1}), bob.admits(g, cat, link{epoch: 1, number: 1}))
	wantStatus(t, v, cat, StatusUnknown)
}

func TestGapAndBadLink(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	g, genesis := ann.found(t)
	one := ann.admits(g, bob, link{number: 1})
	three := ann.admits(g, cat, link{number: 3, previous: Hash{1}})
	wantStatus(t, mustEvaluate(t, g, genesis, one, three), cat, StatusUnknown)
	two := ann.admits(g, cat, link{number: 2, previous: Hash{1}})
	v := mustEvaluate(t, g, genesis, one, two)
	wantStatus(t, v, cat, StatusUnknown)
	if !v.Forked(ann.id()) {
		t.Error("a statement that follows another history is a fork")
	}
}

func TestMergeForChecksThePeer(t *testing.T) {
	ann, bob, cat, eve := newActor(t), newActor(t), newActor(t), newActor(t)
	atAnn := newRosterOf(t, ann)
	admit(t, atAnn, ann, bob)
	atBob := copyOf(t, atAnn)
	admit(t, atBob, bob, cat)
	path := atBob.PathTo(cat.id())
	if err := atAnn.MergeFor(eve.id(), path); !errors.Is(err, grid.ErrNotMember) {
		t.Errorf("somebody else's path: %v", err)
	}
	if len(atAnn.Hashes()) != 2 {
		t.Error("something was stored for a stranger")
	}
	if err := atAnn.MergeFor(cat.id(), path); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, atAnn.View(), cat, StatusActive)
	if err := atAnn.MergeFor(eve.id(), [][]byte{eve.signDevice(atAnn.View().Grid())}); !errors.Is(err, grid.ErrNotMember) {
		t.Errorf("a stranger's own device statement: %v", err)
	}
	phone := cat.device(t)
	if err := atAnn.MergeFor(phone.id(), [][]byte{phone.signDevice(atAnn.View().Grid())}); err != nil {
		t.Errorf("a member's second device: %v", err)
	}
	if err := atAnn.Remove(ann.node, RemoveParams{Owner: cat.ownerID()}); err != nil {
		t.Fatal(err)
	}
	other := cat.device(t)
	if err := atAnn.MergeFor(other.id(), [][]byte{other.signDevice(atAnn.View().Grid())}); !errors.Is(err, grid.ErrRemoved) {
		t.Errorf("a removed owner's new device: %v", err)
	}
}

func TestDelegationEpochs(t *testing.T) {
	ann := newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	phone := ann.device(t)
	for _, epoch := range []uint32{2, 5, 3} {
		d := identity.Delegation{Grid: g, Capabilities: grid.CapWrite, Epoch: epoch}
		if _, err := r.Merge([][]byte{SignDevice(phone.owner, phone.node, d)}); err != nil {
			t.Fatal(err)
		}
	}
	d, signed, ok := r.View().Delegation(phone.id())
	if !ok || d.Epoch != 5 || signed.Verify(identity.DomainDelegation) != nil {
		t.Errorf("delegation %+v", d)
	}
}

// wantPaths: the path to each member convinces somebody who knows nothing.
func wantPaths(t testing.TB, v *View) {
	t.Helper()
	for _, m := range v.Members() {
		path := v.PathTo(m.ID)
		total := 0
		for _, s := range path {
			total += len(s)
		}
		alone, err := Evaluate(v.Grid(), path)
		if err != nil || alone.Status(m.ID) != StatusActive || total > MaxPathBytes {
			t.Errorf("path of %d statements, %d bytes, to %s: %v", len(path), total, m.ID.Short(), err)
		}
	}
}
