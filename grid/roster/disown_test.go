package roster

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/grid/identity"
)

func (s *story) disowns(owner actor, cuts map[grid.PeerID]cut) {
	s.statements = append(s.statements, signDisown(owner.owner, s.g, cuts))
}

// TestDisownUndoesRemovals: the owner key takes back what a device of the owner
// signed, removals of friends, of siblings and of others through an own stooge
// among it; the device is out.
func TestDisownUndoesRemovals(t *testing.T) {
	ann, bob, cat, stooge := newActor(t), newActor(t), newActor(t), newActor(t)
	phone := ann.device(t)
	s := newStory(t, ann)
	s.statements = append(s.statements, phone.signDevice(s.g))
	s.admits(ann, bob, nil)
	s.admits(bob, cat, nil)
	honest := s.now(ann)
	s.admits(ann, stooge, grantAdmin)
	s.removes(ann, removal{peer: bob.id()})
	s.removes(ann, removal{peer: phone.id()})
	s.removes(stooge, removal{owner: cat.ownerID()})
	for _, who := range []actor{bob, phone, cat} {
		wantStatus(t, s.view(), who, StatusRemoved) // else the test proves nothing
	}
	s.disowns(ann, map[grid.PeerID]cut{ann.id(): honest})
	v := s.view()
	for _, who := range []actor{bob, phone, cat} {
		wantStatus(t, v, who, StatusActive)
	}
	wantStatus(t, v, ann, StatusRemoved)
	wantStatus(t, v, stooge, StatusUnknown)
	wantPaths(t, v)
	// What the device signs now counts as little, a fork of its past neither.
	s.removes(ann, removal{peer: bob.id()})
	s.statements = append(s.statements, signRemove(ann.node, s.g, link{number: 1}, removal{peer: bob.id()}))
	wantStatus(t, s.view(), bob, StatusActive)
}

// TestDisownHealsAFork: an author that contradicts its first statement takes all
// whom it admitted along, until its owner names the right branch.
func TestDisownHealsAFork(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	s := newStory(t, ann)
	s.admits(ann, bob, nil)
	s.admits(ann, cat, nil)
	honest := s.now(ann)
	s.statements = append(s.statements, ann.admits(s.g, newActor(t), link{number: 1}))
	wantStatus(t, s.view(), bob, StatusUnknown)
	s.disowns(ann, map[grid.PeerID]cut{ann.id(): honest})
	wantStatus(t, s.view(), bob, StatusActive)
	wantStatus(t, s.view(), cat, StatusActive)
}

// TestDisownCutsOwnPeersOnly: the owner key says nothing about others.
func TestDisownCutsOwnPeersOnly(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	s := newStory(t, ann)
	s.admits(ann, bob, nil)
	s.admits(ann, cat, nil)
	s.removes(ann, removal{peer: cat.id()})
	s.disowns(bob, map[grid.PeerID]cut{ann.id(): {}, cat.id(): {}})
	v := s.view()
	wantStatus(t, v, ann, StatusActive)
	wantStatus(t, v, bob, StatusActive)
	wantStatus(t, v, cat, StatusRemoved)
}

// TestDisownOfARemovedOwner: whom others threw out undoes nothing with the
// phrase, neither that nor what the own peers signed; nor does an owner who came
// in by what is taken back.
func TestDisownOfARemovedOwner(t *testing.T) {
	ann, bob, cat, dan := newActor(t), newActor(t), newActor(t), newActor(t)
	s := newStory(t, ann)
	s.admits(ann, bob, grantAdmin)
	s.admits(ann, cat, nil)
	s.admits(bob, dan, nil)
	s.removes(bob, removal{peer: cat.id()})
	s.removes(ann, removal{owner: bob.ownerID(), cuts: map[grid.PeerID]cut{bob.id(): s.now(bob)}})
	s.disowns(bob, map[grid.PeerID]cut{bob.id(): {}, ann.id(): {}})
	double := actor{node: bob.node, owner: newActor(t).owner} // the removed peer as a peer of a new owner
	s.admits(bob, double, nil)
	s.disowns(double, map[grid.PeerID]cut{bob.id(): {}})
	v := s.view()
	wantStatus(t, v, bob, StatusRemoved)
	wantStatus(t, v, cat, StatusRemoved)
	wantStatus(t, v, dan, StatusActive)
	if v.Disowned() {
		t.Error("a disown counts")
	}
}

// TestJuniorDisownDoesNotDecideAboutSeniors: a removed owner who brings back a
// stooge does not thereby take the word of somebody nearer to the genesis away.
func TestJuniorDisownDoesNotDecideAboutSeniors(t *testing.T) {
	ann, bob, cat, dan, eve, stooge := newActor(t), newActor(t), newActor(t), newActor(t), newActor(t), newActor(t)
	s := newStory(t, ann)
	s.admits(ann, bob, grantAdmin)
	s.admits(ann, cat, grantAdmin)
	s.admits(cat, eve, grantAdmin)
	s.admits(cat, dan, grantAdmin)
	s.admits(dan, stooge, grantAdmin) // ranks below eve
	honest := s.now(bob)
	s.removes(bob, removal{peer: ann.device(t).id()}) // says nothing
	s.removes(eve, removal{peer: stooge.id()})
	s.removes(stooge, removal{owner: bob.ownerID()})
	s.removes(ann, removal{owner: eve.ownerID(), cuts: map[grid.PeerID]cut{eve.id(): s.now(eve)}})
	s.disowns(bob, map[grid.PeerID]cut{bob.id(): honest})
	s.disowns(eve, map[grid.PeerID]cut{eve.id(): {}})
	v := s.view()
	wantStatus(t, v, stooge, StatusRemoved)
	if v.OwnerStatus(bob.ownerID()) != StatusActive {
		t.Error("the senior's owner is no member")
	}
}

// TestDisownBeatsTheDevice: whatever malware on one device signs, with stooges
// of its own, the owner's word brings back all who were there before.
func TestDisownBeatsTheDevice(t *testing.T) {
	cast := theCast(t)
	rapid.Check(t, func(t *rapid.T) {
		founder, victim := cast[0], cast[0]
		g, genesis, err := signGenesis(founder.owner, founder.node, "third", identity.Delegation{Capabilities: grid.CapAll})
		if err != nil {
			t.Fatal(err)
		}
		h := &history{t: t, g: g, chains: map[int][]written{}}
		h.statements = [][]byte{genesis, cast[1].signDevice(g)}
		friends := []actor{cast[1], cast[2], cast[4]}
		say := func(by int, sign func(l link) []byte) {
			l := link{number: 1}
			if chain := h.chains[by]; len(chain) > 0 {
				last := chain[len(chain)-1]
				l = link{last.link.epoch, last.link.number + 1, last.hash}
			}
			h.write(by, l, sign(l))
		}
		admit := func(l link, by, who actor, admin bool) []byte {
			p := who.params(g, by.id())
			p.GrantAdmin = admin
			return signAdmit(by.node, g, l, p, 0)
		}
		say(0, func(l link) []byte { return admit(l, founder, cast[2], true) })
		say(0, func(l link) []byte { return admit(l, founder, cast[4], false) })
		if rapid.Bool().Draw(t, "not the founder") {
			victim = cast[2]
			friends = []actor{cast[0], cast[1], cast[4], cast[3]}
			h.statements = append(h.statements, cast[3].signDevice(g)) // the victim's other device
		}
		at := slices.IndexFunc(cast, func(a actor) bool { return a.id() == victim.id() })
		keep := cut{}
		if chain := h.chains[at]; len(chain) > 0 {
			last := chain[len(chain)-1]
			keep = cut{last.link.epoch, last.link.number, last.hash}
		}
		// From here the attacker has the victim's node key, and stooges of its own.
		bad := []int{at, 6, 8}
		for range rapid.IntRange(1, 20).Draw(t, "attacks") {
			by := rapid.SampledFrom(bad).Draw(t, "by")
			who := cast[rapid.SampledFrom([]int{0, 1, 2, 3, 4, 6, 8}).Draw(t, "who")]
			l := func() link { h.actors = cast; return h.link(by) }()
			if rapid.Bool().Draw(t, "admit") && (who.id() == cast[6].id() || who.id() == cast[8].id()) {
				h.write(by, l, admit(l, cast[by], who, true))
				continue
			}
			h.write(by, l, signRemove(cast[by].node, g, l, h.removal(who)))
		}
		h.statements = append(h.statements, signDisown(victim.owner, g, map[grid.PeerID]cut{victim.id(): keep}))
		v, err := Evaluate(g, rapid.Permutation(h.statements).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		for _, friend := range friends {
			if got := v.Status(friend.id()); got != StatusActive {
				t.Fatalf("a friend is %s", got)
			}
		}
		if v.Status(victim.id()) != StatusRemoved || v.OwnerStatus(victim.ownerID()) != StatusActive {
			t.Fatalf("the device is %s, its owner %s", v.Status(victim.id()), v.OwnerStatus(victim.ownerID()))
		}
	})
}

// TestDoubtsChooseWhatToKeep: only what came lately is doubted; the statements
// before it are kept, and of a fork the branch that came first.
func TestDoubtsChooseWhatToKeep(t *testing.T) {
	ann, bob, cat, dan, stooge := newActor(t), newActor(t), newActor(t), newActor(t), newActor(t)
	tablet := ann.device(t)
	s := newStory(t, ann)
	s.statements = append(s.statements, tablet.signDevice(s.g))
	s.admits(ann, bob, nil)
	s.admits(ann, dan, nil)
	s.removes(ann, removal{peer: dan.id()}) // long ago, and for good reason
	s.admits(ann, cat, nil)
	old := len(s.statements)
	s.admits(ann, stooge, grantAdmin)
	s.removes(stooge, removal{peer: cat.id()})
	s.removes(ann, removal{peer: bob.id()})
	s.statements = append(s.statements, ann.admits(s.g, newActor(t), link{number: 1}))
	now := time.Now()
	learnt := map[Hash]time.Time{}
	for i, raw := range s.statements {
		learnt[HashOf(raw)] = now.Add(-time.Hour)
		if i < old {
			learnt[HashOf(raw)] = now.Add(-1000 * time.Hour)
		}
	}
	v := s.view()
	if got := v.Doubts(ann.ownerID(), now, learnt); len(got) > 0 {
		t.Errorf("doubts about what is older: %+v", got)
	}
	if got := v.Doubts(bob.ownerID(), now.Add(-24*time.Hour), learnt); len(got) > 0 {
		t.Errorf("doubts about another owner: %+v", got)
	}
	got := v.Doubts(ann.ownerID(), now.Add(-24*time.Hour), learnt)
	if len(got) != 1 || got[0].Device != ann.id() || !got[0].Forked || len(got[0].Removals) != 2 {
		t.Fatalf("doubts %+v", got)
	}
	raw, err := SignDisown(ann.owner, s.g, got)
	if err != nil {
		t.Fatal(err)
	}
	s.statements = append(s.statements, raw)
	v = s.view()
	if got := v.Doubts(ann.ownerID(), now.Add(-24*time.Hour), learnt); len(got) > 0 {
		t.Errorf("doubts about what was taken back: %+v", got)
	}
	for who, want := range map[*actor]Status{&bob: StatusActive, &cat: StatusActive, &tablet: StatusActive, &dan: StatusRemoved, &stooge: StatusUnknown, &ann: StatusRemoved} {
		wantStatus(t, v, *who, want)
	}
}

// TestRemovedPeersComeBackByADisown: who is removed here gets in with the owner's
// word and with nothing less; the file remembers when what came.
func TestRemovedPeersComeBackByADisown(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	admit(t, r, ann, bob)
	admit(t, r, ann, cat)
	before := r.View().lastOf(ann.id())
	atBob := copyOf(t, r)
	if err := r.Remove(ann.node, RemoveParams{Peer: bob.id()}); err != nil {
		t.Fatal(err)
	}
	if err := r.MergeFor(bob.id(), atBob.PathTo(bob.id())); !errors.Is(err, grid.ErrRemoved) {
		t.Errorf("a removed peer came back: %v", err)
	}
	forged := signDisown(bob.owner, g, map[grid.PeerID]cut{ann.id(): before})
	if err := r.MergeFor(bob.id(), append(atBob.PathTo(bob.id()), forged)); !errors.Is(err, grid.ErrRemoved) {
		t.Errorf("a removed peer came back by the word of its own owner: %v", err)
	}
	if _, err := atBob.Merge([][]byte{signDisown(ann.owner, g, map[grid.PeerID]cut{ann.id(): before})}); err != nil {
		t.Fatal(err)
	}
	if err := r.MergeFor(bob.id(), atBob.PathTo(bob.id())); err != nil {
		t.Error(err)
	}
	wantStatus(t, r.View(), bob, StatusActive)
	learnt := r.Learnt()
	reopened, err := Import(filepath.Join(t.TempDir(), "roster"), g, r.All())
	if err != nil {
		t.Fatal(err)
	}
	defer reopened.Close()
	if len(reopened.Learnt()) != 0 {
		t.Error("an imported roster says when statements came")
	}
	again, err := Open(r.journal.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if len(learnt) != len(r.Hashes())-1 || len(again.Learnt()) != len(learnt) { // but for the genesis
		t.Errorf("%d times, %d after opening again, of %d statements", len(learnt), len(again.Learnt()), len(r.Hashes()))
	}
	for hash, at := range again.Learnt() {
		if !at.Equal(learnt[hash]) || time.Since(at) > time.Hour {
			t.Errorf("learnt %s, then %s", learnt[hash], at)
		}
	}
}
