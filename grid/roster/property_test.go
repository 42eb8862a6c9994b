package roster

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/grid/identity"
)

// history is a random set of statements by actors of whom some are dishonest:
// they fork, leave gaps, write in epochs that nobody gave them, back-date after
// removal, remove whom they must not, and admit peers of others.
type history struct {
	t          *rapid.T
	g          grid.GridID
	actors     []actor // several share an owner
	statements [][]byte
	chains     map[int][]written // by actor: what it wrote, forks too
}

type written struct {
	link link
	hash Hash
}

var cast []actor // made once: keys are slow to make

func theCast(t testing.TB) []actor {
	if cast == nil {
		for range 5 {
			a := newActor(t)
			cast = append(cast, a, a.device(t))
		}
	}
	return cast
}

func drawHistory(t *rapid.T, actors []actor) *history {
	h := &history{t: t, actors: actors, chains: map[int][]written{}}
	g, genesis, err := signGenesis(actors[0].owner, actors[0].node, "test", identity.Delegation{Capabilities: grid.CapAll})
	if err != nil {
		t.Fatal(err)
	}
	h.g, h.statements = g, [][]byte{genesis}
	for range rapid.IntRange(4, 30).Draw(t, "statements") {
		h.step()
	}
	return h
}

func (h *history) actor(label string) int {
	return rapid.IntRange(0, len(h.actors)-1).Draw(h.t, label)
}

func (h *history) step() {
	by := h.actor("by")
	who := h.actors[h.actor("who")]
	switch rapid.SampledFrom([]string{"admit", "admit", "admit", "admit", "device", "remove", "remove", "disown"}).Draw(h.t, "kind") {
	case "admit":
		inviter := h.actors[by].id()
		if rapid.IntRange(0, 5).Draw(h.t, "other inviter") == 0 {
			inviter = grid.PeerID{}
		}
		p := who.params(h.g, inviter)
		p.GrantAdmin = rapid.Bool().Draw(h.t, "grant")
		epoch := rapid.SampledFrom([]uint32{0, 0, 0, 1, 2}).Draw(h.t, "author epoch")
		l := h.link(by)
		h.write(by, l, signAdmit(h.actors[by].node, h.g, l, p, epoch))
	case "device":
		h.statements = append(h.statements, who.signDevice(h.g))
	case "remove":
		l := h.link(by)
		h.write(by, l, signRemove(h.actors[by].node, h.g, l, h.removal(who)))
	case "disown":
		h.statements = append(h.statements, signDisown(who.owner, h.g, h.disowned(who)))
	}
}

// disowned cuts some peers, mostly of the owner.
func (h *history) disowned(owner actor) map[grid.PeerID]cut {
	cuts := map[grid.PeerID]cut{}
	for i, a := range h.actors {
		if a.ownerID() != owner.ownerID() && rapid.IntRange(0, 5).Draw(h.t, "foreign") > 0 {
			continue
		}
		cuts[a.id()] = cut{}
		if chain := h.chains[i]; len(chain) > 0 && rapid.IntRange(0, 3).Draw(h.t, "cut") > 0 {
			at := rapid.SampledFrom(chain).Draw(h.t, "cut at")
			cuts[a.id()] = cut{at.link.epoch, at.link.number, at.hash}
		}
	}
	return cuts
}

func (h *history) write(by int, l link, raw []byte) {
	h.statements = append(h.statements, raw)
	h.chains[by] = append(h.chains[by], written{l, HashOf(raw)})
}

// link is mostly the honest next place, else a fork, a gap or another epoch.
func (h *history) link(by int) link {
	chain := h.chains[by]
	switch rapid.IntRange(0, 9).Draw(h.t, "link") {
	case 0:
		return link{epoch: uint32(rapid.IntRange(1, 2).Draw(h.t, "epoch")), number: 1}
	case 1:
		return link{number: uint32(rapid.IntRange(2, 4).Draw(h.t, "number")), previous: Hash{1}}
	case 2:
		if len(chain) > 0 {
			return rapid.SampledFrom(chain).Draw(h.t, "fork at").link
		}
	case 3:
		if len(chain) > 0 {
			at := rapid.SampledFrom(chain).Draw(h.t, "fork behind")
			return link{at.link.epoch, at.link.number + 1, at.hash}
		}
	}
	if len(chain) == 0 {
		return link{number: 1}
	}
	last := chain[len(chain)-1]
	return link{last.link.epoch, last.link.number + 1, last.hash}
}

func (h *history) removal(who actor) removal {
	r := removal{peer: who.id(), cuts: map[grid.PeerID]cut{}}
	if rapid.IntRange(0, 3).Draw(h.t, "owner") == 0 {
		r.peer, r.owner = grid.PeerID{}, who.ownerID()
	}
	for i, a := range h.actors {
		if a.id() != r.peer && a.ownerID() != r.owner {
			continue
		}
		chain := h.chains[i]
		switch {
		case len(chain) > 0 && rapid.IntRange(0, 3).Draw(h.t, "cut") > 0:
			at := rapid.SampledFrom(chain).Draw(h.t, "cut at")
			r.cuts[a.id()] = cut{at.link.epoch, at.link.number, at.hash}
		case rapid.Bool().Draw(h.t, "cut to nothing"):
			r.cuts[a.id()] = cut{}
		}
	}
	return r
}

// TestEvaluationIgnoresOrder: who is a member depends on the set only.
func TestEvaluationIgnoresOrder(t *testing.T) {
	actors := theCast(t)
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t, actors)
		parsed, err := newSet(h.g).read(h.statements)
		if err != nil {
			t.Fatal(err)
		}
		want := viewOf(t, h.g, parsed)
		for range 4 {
			got := viewOf(t, h.g, rapid.Permutation(parsed).Draw(t, "order"))
			if got.Digest() != want.Digest() || describe(got) != describe(want) {
				t.Fatalf("another order gives\n%s\nnot\n%s", describe(got), describe(want))
			}
		}
		checkInvariants(t, h, want)
	})
}

// viewOf is Evaluate of statements that were verified already.
func viewOf(t *rapid.T, g grid.GridID, parsed []*statement) *View {
	set := newSet(g)
	set.add(set.connected(parsed))
	v, err := set.view()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkInvariants holds for every history, however hostile.
func checkInvariants(t *rapid.T, h *history, v *View) {
	wantPaths(&fatalTB{TB: nil, t: t}, v)
	founder := h.actors[0]
	for _, m := range v.Members() {
		if v.out.removedPeers[m.ID] || v.out.removedOwners[m.Owner] {
			t.Fatalf("%s is a member though removed", m.ID.Short())
		}
		if m.Signed.Verify(identity.DomainDelegation) != nil || m.Delegation.Peer != m.ID || m.Delegation.Grid != h.g ||
			grid.OwnerIDOf(m.OwnerKey) != m.Owner || grid.PeerIDOf(m.Key) != m.ID {
			t.Fatalf("member %s with foreign papers", m.ID.Short())
		}
	}
	byFounder := false
	for _, raw := range h.statements {
		s, err := parseStatement(h.g, raw)
		if err != nil {
			t.Fatal(err)
		}
		byFounder = byFounder || s.kind == kindRemove && (s.author == founder.id() || s.author == h.actors[1].id()) ||
			s.kind == kindDisown && s.disown.owner == founder.ownerID()
	}
	if !byFounder && (!v.IsAdmin(founder.id()) || v.OwnerStatus(founder.ownerID()) != StatusActive) {
		t.Fatal("the founder was removed by somebody else")
	}
}

// fatalTB lets helpers for testing.TB report through rapid.
type fatalTB struct {
	testing.TB
	t *rapid.T
}

func (f *fatalTB) Helper()                      {}
func (f *fatalTB) Errorf(s string, args ...any) { f.t.Fatalf(s, args...) }
func (f *fatalTB) Fatal(args ...any)            { f.t.Fatal(args...) }

// TestRostersConverge: rosters that learnt random parts in random batches agree
// once each has offered the others what they lack, on disk too.
func TestRostersConverge(t *testing.T) {
	actors := theCast(t)
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt, actors)
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		var rosters []*Roster
		for _, name := range []string{"a", "b"} {
			r, err := Import(filepath.Join(dir, name), h.g, h.statements[:1])
			if err != nil {
				rt.Fatal(err)
			}
			defer r.Close()
			rosters = append(rosters, r)
		}
		size := rapid.IntRange(1, 12).Draw(rt, "batch")
		for batch := range slices.Chunk(rapid.Permutation(h.statements).Draw(rt, "order"), size) {
			to := rosters[rapid.IntRange(0, 1).Draw(rt, "to")]
			if _, err := to.Merge(batch); err != nil {
				rt.Fatal(err)
			}
		}
		// What was offered before its author was known comes again.
		for _, r := range rosters {
			if _, err := r.Merge(h.statements); err != nil {
				rt.Fatal(err)
			}
		}
		want, err := Evaluate(h.g, h.statements)
		if err != nil {
			rt.Fatal(err)
		}
		for _, r := range rosters {
			if r.Digest() != want.Digest() || describe(r.View()) != describe(want) {
				rt.Fatalf("a roster has\n%s\nnot\n%s", describe(r.View()), describe(want))
			}
		}
		reopened, err := Open(rosters[0].journal.file.Name())
		if err != nil {
			rt.Fatal(err)
		}
		defer reopened.Close()
		if describe(reopened.View()) != describe(want) || !slices.EqualFunc(reopened.All(), rosters[0].All(), bytes.Equal) {
			rt.Fatal("the file holds something else")
		}
	})
}

// TestRemovalStands: once an admin's removal counts, nothing that the removed
// peer or its friends write brings it back.
func TestRemovalStands(t *testing.T) {
	actors := theCast(t)
	rapid.Check(t, func(t *rapid.T) {
		founder, others := actors[0], actors[2:]
		victim := rapid.SampledFrom(others).Draw(t, "victim")
		g, genesis, err := signGenesis(founder.owner, founder.node, "other", identity.Delegation{Capabilities: grid.CapAll})
		if err != nil {
			t.Fatal(err)
		}
		h := &history{t: t, g: g, actors: others, chains: map[int][]written{}}
		one := founder.admits(g, victim, link{number: 1})
		two := signRemove(founder.node, g, after(one, 1), removal{peer: victim.id(), cuts: map[grid.PeerID]cut{}})
		h.statements = [][]byte{genesis, one, two}
		for range 20 {
			h.step()
		}
		v, err := Evaluate(g, h.statements)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Status(victim.id()); got != StatusRemoved {
			t.Fatalf("the removed peer is %s", got)
		}
	})
}
