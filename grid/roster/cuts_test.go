package roster

import (
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"gotong/grid"
)

// story is a grid whose statements are written one after another by honest
// authors, as far as a test does not say otherwise.
type story struct {
	t          testing.TB
	g          grid.GridID
	statements [][]byte
	last       map[grid.PeerID]link // of each author's last statement, with its own hash
}

func newStory(t testing.TB, founder actor) *story {
	g, genesis := founder.found(t)
	return &story{t: t, g: g, statements: [][]byte{genesis}, last: map[grid.PeerID]link{}}
}

func (s *story) next(by actor) link {
	l := s.last[by.id()]
	return link{epoch: l.epoch, number: l.number + 1, previous: l.previous}
}

func (s *story) wrote(by actor, l link, raw []byte) {
	s.statements = append(s.statements, raw)
	s.last[by.id()] = link{epoch: l.epoch, number: l.number, previous: HashOf(raw)}
}

func (s *story) admits(by, who actor, change func(*AdmitParams)) {
	p, l := who.params(s.g, by.id()), s.next(by)
	if change != nil {
		change(&p)
	}
	s.wrote(by, l, signAdmit(by.node, s.g, l, p, 0))
}

func (s *story) readmits(by, who actor, epoch uint32) {
	l := s.next(by)
	s.wrote(by, l, signAdmit(by.node, s.g, l, who.params(s.g, by.id()), epoch))
	s.last[who.id()] = link{epoch: epoch}
}

func (s *story) removes(by actor, r removal) {
	l := s.next(by)
	s.wrote(by, l, signRemove(by.node, s.g, l, r))
}

// now names the author's last statement as a cut.
func (s *story) now(of actor) cut {
	l := s.last[of.id()]
	return cut{epoch: l.epoch, number: l.number, hash: l.previous}
}

// view evaluates the story, forwards and backwards.
func (s *story) view() *View {
	s.t.Helper()
	v := mustEvaluate(s.t, s.g, s.statements...)
	backwards := slices.Clone(s.statements)
	slices.Reverse(backwards)
	if other := mustEvaluate(s.t, s.g, backwards...); describe(other) != describe(v) {
		s.t.Errorf("backwards it reads\n%s\nnot\n%s", describe(other), describe(v))
	}
	return v
}

func grantAdmin(p *AdmitParams) { p.GrantAdmin = true }

// TestTwoRemovalsOfAnOwner: of what two removals leave of each author the lower
// counts, and who is not listed in both has nothing left.
func TestTwoRemovalsOfAnOwner(t *testing.T) {
	ann, bob, tablet := newActor(t), newActor(t), actor{}
	tablet = bob.device(t)
	phone := ann.device(t)
	one, two, three := newActor(t), newActor(t), newActor(t)
	for _, swap := range []bool{false, true} {
		s := newStory(t, ann)
		s.statements = append(s.statements, phone.signDevice(s.g))
		s.admits(ann, bob, nil)
		s.statements = append(s.statements, tablet.signDevice(s.g))
		s.admits(bob, one, nil)
		low := s.now(bob)
		s.admits(bob, two, nil)
		high := s.now(bob)
		s.admits(tablet, three, nil)
		first, second := ann, phone
		if swap {
			first, second = phone, ann
		}
		s.removes(first, removal{owner: bob.ownerID(), cuts: map[grid.PeerID]cut{bob.id(): high, tablet.id(): s.now(tablet)}})
		v := s.view()
		for _, a := range []actor{one, two, three} {
			wantStatus(t, v, a, StatusActive)
		}
		s.removes(second, removal{owner: bob.ownerID(), cuts: map[grid.PeerID]cut{bob.id(): low}})
		v = s.view()
		wantStatus(t, v, bob, StatusRemoved)
		wantStatus(t, v, tablet, StatusRemoved)
		wantStatus(t, v, one, StatusActive)
		wantStatus(t, v, two, StatusUnknown)
		wantStatus(t, v, three, StatusUnknown)
	}
}

// TestPeerAndOwnerRemoved: the lower of a peer's own cut and its owner's counts.
func TestPeerAndOwnerRemoved(t *testing.T) {
	for _, peerIsLower := range []bool{false, true} {
		ann, bob, one, two := newActor(t), newActor(t), newActor(t), newActor(t)
		s := newStory(t, ann)
		s.admits(ann, bob, nil)
		s.admits(bob, one, nil)
		peerCut := s.now(bob)
		s.admits(bob, two, nil)
		ownerCut := s.now(bob)
		if !peerIsLower {
			peerCut, ownerCut = ownerCut, peerCut
		}
		s.removes(ann, removal{peer: bob.id(), cuts: map[grid.PeerID]cut{bob.id(): peerCut}})
		s.removes(ann, removal{owner: bob.ownerID(), cuts: map[grid.PeerID]cut{bob.id(): ownerCut}})
		v := s.view()
		wantStatus(t, v, one, StatusActive)
		wantStatus(t, v, two, StatusUnknown)
	}
}

// TestCutInALaterEpoch: a removed author's earlier epochs keep counting, later
// ones do not.
func TestCutInALaterEpoch(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	early, middle, late := newActor(t), newActor(t), newActor(t)
	s := newStory(t, ann)
	s.admits(ann, bob, nil)
	s.admits(bob, early, nil)
	s.readmits(ann, bob, 1)
	s.admits(bob, middle, nil)
	at := s.now(bob)
	s.readmits(ann, bob, 2)
	s.admits(bob, late, nil)
	for _, a := range []actor{early, middle, late} {
		wantStatus(t, s.view(), a, StatusActive)
	}
	wantPaths(t, s.view())
	s.removes(ann, removal{peer: bob.id(), cuts: map[grid.PeerID]cut{bob.id(): at}})
	v := s.view()
	wantStatus(t, v, early, StatusActive)
	wantStatus(t, v, middle, StatusActive)
	wantStatus(t, v, late, StatusUnknown)
	wantPaths(t, v)
}

// TestNearerAdmissionRanks: an admin that is admitted a second time nearer to
// the founder has its removals ranked by the nearer one.
func TestNearerAdmissionRanks(t *testing.T) {
	ann, far, rival := newActor(t), newActor(t), newActor(t)
	links := []actor{newActor(t), newActor(t), newActor(t)}
	s := newStory(t, ann)
	s.admits(ann, links[0], grantAdmin)
	s.admits(links[0], rival, grantAdmin) // depth 2
	s.admits(links[0], links[1], grantAdmin)
	s.admits(links[1], links[2], grantAdmin)
	s.admits(links[2], far, grantAdmin) // depth 4
	s.removes(far, removal{peer: rival.id()})
	s.removes(rival, removal{peer: far.id()})
	v := s.view()
	wantStatus(t, v, far, StatusRemoved)
	wantStatus(t, v, rival, StatusActive)
	s.readmits(ann, far, 0) // depth 1
	v = s.view()
	wantStatus(t, v, far, StatusActive)
	wantStatus(t, v, rival, StatusRemoved)
}

// TestUnlistedAuthorsOfARemovedOwner: a device that shows up later cannot write.
func TestUnlistedAuthorsOfARemovedOwner(t *testing.T) {
	ann, bob, late := newActor(t), newActor(t), newActor(t)
	s := newStory(t, ann)
	s.admits(ann, bob, nil)
	s.removes(ann, removal{owner: bob.ownerID(), cuts: map[grid.PeerID]cut{bob.id(): s.now(bob)}})
	hidden := bob.device(t)
	s.statements = append(s.statements, hidden.signDevice(s.g))
	s.admits(hidden, late, nil)
	v := s.view()
	wantStatus(t, v, hidden, StatusRemoved)
	wantStatus(t, v, late, StatusUnknown)
}

// TestPathIsBounded: after hundreds of admissions the path still fits, and
// somebody who knows the older part verifies it.
func TestPathIsBounded(t *testing.T) {
	ann := newActor(t)
	s := newStory(t, ann)
	for range 300 {
		s.admits(ann, newActor(t), nil)
	}
	known := filepath.Join(t.TempDir(), "roster")
	other, err := Import(known, s.g, s.statements[:270])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	newest := newActor(t)
	s.admits(ann, newest, nil)
	path, total := s.view().PathTo(newest.id()), 0
	for _, raw := range path {
		total += len(raw)
	}
	if total > MaxPathBytes || len(path) < 50 {
		t.Fatalf("%d statements, %d bytes", len(path), total)
	}
	if err := other.MergeFor(newest.id(), path); err != nil {
		t.Error(err)
	}
}

// TestManyAuthorsAtOnce: admissions and merges from many goroutines leave one
// unbroken chain.
func TestManyAuthorsAtOnce(t *testing.T) {
	const joiners = 20
	ann := newActor(t)
	r := newRosterOf(t, ann)
	other := copyOf(t, r)
	var wait sync.WaitGroup
	for range joiners {
		who := newActor(t)
		wait.Go(func() {
			if err := r.Admit(ann.node, who.params(r.View().Grid(), ann.id())); err != nil {
				t.Error(err)
			}
			if _, err := other.Merge(r.Missing(other.Hashes())); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	sync2(t, r, other)
	if v := other.View(); len(v.Members()) != joiners+1 || v.Forked(ann.id()) {
		t.Errorf("%d members, forked %v", len(v.Members()), v.Forked(ann.id()))
	}
}

func TestStatementsByHash(t *testing.T) {
	ann := newActor(t)
	r := newRosterOf(t, ann)
	admit(t, r, ann, newActor(t))
	hashes := r.Hashes()
	got := r.Statements([]Hash{hashes[1], {}})
	if len(got) != 1 || HashOf(got[0]) != hashes[1] {
		t.Errorf("%d statements", len(got))
	}
	if lacking := r.Lacking([]Hash{hashes[0], {1}}); len(lacking) != 1 || lacking[0] != (Hash{1}) {
		t.Errorf("lacking %x", lacking)
	}
	if owner, ok := r.View().OwnerOf(ann.id()); !ok || owner != ann.ownerID() {
		t.Error("owner of the first peer")
	}
}

func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int{100, 4000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			ann := newActor(b)
			s := newStory(b, ann)
			for range n {
				s.admits(ann, newActor(b), nil)
			}
			set := newSet(s.g)
			fresh, err := set.read(s.statements)
			if err != nil {
				b.Fatal(err)
			}
			set.add(set.connected(fresh))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := set.view(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
