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

func TestGenesisOwnerRemovesItself(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	admit(t, r, ann, bob)
	if err := r.Remove(ann.node, RemoveParams{Owner: ann.ownerID()}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.View(), ann, StatusRemoved)
	wantStatus(t, r.View(), bob, StatusActive)
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
