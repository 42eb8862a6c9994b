package invite

import (
	"errors"
	"sync"
	"testing"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
	invitev1 "gotong/proto/invite/v1"
)

func TestJoin(t *testing.T) {
	ann, bob := newMember(t), newPerson(t)
	code := ann.invite(t)
	parsed, err := ParseCode(code.String())
	if err != nil {
		t.Fatal(err)
	}
	result, err := bob.join(t, ann, parsed)
	if err != nil {
		t.Fatal(err)
	}
	wantMember(t, ann, bob, roster.StatusActive)
	if m, _ := result.View.Member(bob.node.PeerID()); m.InvitedBy != ann.node.PeerID() || m.Owner != bob.ownerID() || m.Admin {
		t.Errorf("joined as %+v", m)
	}
	if record, _, ok := ann.records.Get(bob.node.PeerID()); !ok || record.Addresses[0] != "192.0.2.9:4114" {
		t.Errorf("the record was not kept: %+v", record)
	}
	if len(result.Records) != 1 {
		t.Errorf("%d records came back", len(result.Records))
	}
	// The new member can invite in turn.
	cat := newPerson(t).mustJoin(t, bob.joined(t, code, result))
	if n := len(cat.roster.View().Members()); n != 3 {
		t.Errorf("%d members", n)
	}
}

// TestOneOfFiftyJoins: an invite admits one peer, whoever comes at once.
func TestOneOfFiftyJoins(t *testing.T) {
	const joiners = 50
	ann := newMember(t)
	code := ann.invite(t)
	var wait sync.WaitGroup
	errs := make(chan error, joiners)
	for range joiners {
		p := newPerson(t)
		conn := p.dial(t, ann)
		wait.Go(func() {
			_, err := Join(t.Context(), conn, code, p.params())
			errs <- err
		})
	}
	wait.Wait()
	close(errs)
	joined := 0
	for err := range errs {
		if err == nil {
			joined++
		} else if !errors.Is(err, ErrUsed) {
			t.Errorf("refused with %v", err)
		}
	}
	if joined != 1 || len(ann.roster.View().Members()) != 2 {
		t.Errorf("%d joined, %d members", joined, len(ann.roster.View().Members()))
	}
}

// TestLostAnswer: the joiner that used the invite may come again, nobody else.
func TestLostAnswer(t *testing.T) {
	ann, bob, eve := newMember(t), newPerson(t), newPerson(t)
	code := ann.invite(t)
	for range 2 {
		if _, err := bob.join(t, ann, code); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := eve.join(t, ann, code); !errors.Is(err, ErrUsed) {
		t.Errorf("another peer: %v", err)
	}
	if n := len(ann.roster.Hashes()); n != 2 {
		t.Errorf("%d statements", n)
	}
}

// TestCrashBetweenMarkAndAdmit: the inviter dies after the used-mark is on the
// disk and before the admission is.
func TestCrashBetweenMarkAndAdmit(t *testing.T) {
	ann, bob, eve := newMember(t), newPerson(t), newPerson(t)
	code := ann.invite(t)
	if err := ann.roster.Close(); err != nil { // the admission cannot be written
		t.Fatal(err)
	}
	if _, err := bob.join(t, ann, code); !errors.Is(err, ErrFailed) {
		t.Fatalf("joined without an admission: %v", err)
	}
	ann.restart(t)
	wantMember(t, ann, bob, roster.StatusUnknown)
	if _, err := eve.join(t, ann, code); !errors.Is(err, ErrUsed) {
		t.Errorf("another peer: %v", err)
	}
	if _, err := bob.join(t, ann, code); err != nil {
		t.Errorf("the same peer: %v", err)
	}
	wantMember(t, ann, bob, roster.StatusActive)
	wantMember(t, ann, eve, roster.StatusUnknown)
}

func TestWrongSecretBurns(t *testing.T) {
	ann, bob, eve := newMember(t), newPerson(t), newPerson(t)
	code, other := ann.invite(t), ann.invite(t)
	guess := code
	guess.Secret[0] ^= 1
	for range MaxWrong {
		if _, err := eve.join(t, ann, guess); !errors.Is(err, ErrWrongSecret) {
			t.Fatalf("wrong secret: %v", err)
		}
		ann.restart(t) // the count survives
	}
	if _, err := bob.join(t, ann, code); !errors.Is(err, ErrBurnt) {
		t.Errorf("after %d wrong tries: %v", MaxWrong, err)
	}
	unknown := code
	unknown.ID[0] ^= 1
	if _, err := bob.join(t, ann, unknown); !errors.Is(err, ErrUnknownInvite) {
		t.Errorf("unknown invite: %v", err)
	}
	if _, err := bob.join(t, ann, other); err != nil {
		t.Errorf("another invite: %v", err)
	}
	// An invite that was used is not burnt by others' guesses.
	guess = other
	guess.Secret[0] ^= 1
	for range MaxWrong {
		if _, err := eve.join(t, ann, guess); !errors.Is(err, ErrWrongSecret) {
			t.Fatal(err)
		}
	}
	if _, err := bob.join(t, ann, other); err != nil {
		t.Errorf("the joiner again: %v", err)
	}
}

// TestProofIsBoundToTheSession: what one connection shows is worth nothing on
// another, even of the same peer.
func TestProofIsBoundToTheSession(t *testing.T) {
	ann, bob := newMember(t), newPerson(t)
	code := ann.invite(t)
	one, two := bob.dial(t, ann), bob.dial(t, ann)
	if _, err := Join(t.Context(), &otherSession{two, one}, code, bob.params()); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("a proof of another session: %v", err)
	}
}

// otherSession proves with the keying material of a second connection.
type otherSession struct {
	*tlsConn
	other *tlsConn
}

func (c *otherSession) ExportKeyingMaterial(label string, context []byte, n int) ([]byte, error) {
	return c.other.ExportKeyingMaterial(label, context, n)
}

func TestJoinChecksTheInviter(t *testing.T) {
	ann, mallory, bob := newMember(t), newMember(t), newPerson(t)
	code := ann.invite(t)
	if _, err := bob.join(t, mallory, code); err == nil {
		t.Error("joined at another peer")
	}
	// A peer that lists the invite with another secret, or serves another grid.
	code = mallory.invite(t)
	code.Grid = ann.roster.View().Grid()
	if _, err := bob.join(t, mallory, code); err == nil {
		t.Error("joined another grid than the code's")
	}
	wantMember(t, mallory, bob, roster.StatusUnknown)
}

func TestRemovedStayOut(t *testing.T) {
	ann, bob := newMember(t), newPerson(t)
	bob.mustJoin(t, ann)
	if err := ann.roster.Remove(ann.node, roster.RemoveParams{Owner: bob.ownerID()}); err != nil {
		t.Fatal(err)
	}
	code := ann.invite(t)
	phone := person{newPerson(t).node, bob.owner}
	for _, p := range []person{bob, phone} {
		if _, err := p.join(t, ann, code); !errors.Is(err, grid.ErrRemoved) {
			t.Errorf("a removed owner: %v", err)
		}
	}
	if _, err := newPerson(t).join(t, ann, code); err != nil {
		t.Errorf("the refused ones used the invite up: %v", err)
	}
}

// TestSecondDevice: a member's other machine comes in by its owner's word, on an
// invite or without one, through any member.
func TestSecondDevice(t *testing.T) {
	ann, bob := newMember(t), newPerson(t)
	bob.mustJoin(t, ann)
	g := ann.roster.View().Grid()
	byInvite, recovered := person{newPerson(t).node, bob.owner}, person{newPerson(t).node, bob.owner}
	if _, err := byInvite.join(t, ann, ann.invite(t)); err != nil {
		t.Fatal(err)
	}
	result, err := Recover(t.Context(), recovered.dial(t, ann), g, recovered.params())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []person{byInvite, recovered} {
		m, ok := result.View.Member(p.node.PeerID())
		if !ok || m.Owner != bob.ownerID() || !m.InvitedBy.IsZero() {
			t.Errorf("device %+v", m)
		}
	}
	stranger := newPerson(t)
	if _, err := Recover(t.Context(), stranger.dial(t, ann), g, stranger.params()); !errors.Is(err, grid.ErrNotMember) {
		t.Errorf("a stranger's device: %v", err)
	}
	wantMember(t, ann, stranger, roster.StatusUnknown)
}

// TestFind: an owner who proves to be one is told its grid and epoch, and nobody
// else is; a proof of one session says nothing in another.
func TestFind(t *testing.T) {
	ann, bob := newMember(t), newPerson(t)
	bob.mustJoin(t, ann)
	again := person{newPerson(t).node, bob.owner}
	d, err := Find(t.Context(), again.dial(t, ann), again.owner)
	if err != nil || d.Grid != ann.roster.View().Grid() || d.Peer != bob.node.PeerID() {
		t.Errorf("found %+v, %v", d, err)
	}
	if _, err := Find(t.Context(), again.dial(t, ann), newPerson(t).owner); !errors.Is(err, grid.ErrNotMember) {
		t.Errorf("a stranger: %v", err)
	}
	stolen := identity.Sign(bob.owner, DomainOwnerProof, make([]byte, 32))
	_, err = request(t.Context(), again.dial(t, ann), &invitev1.Request{Ask: &invitev1.Request_Find{Find: &invitev1.Find{Proof: stolen.Encode()}}})
	if !errors.Is(err, ErrBadRequest) {
		t.Errorf("a proof of another session: %v", err)
	}
	if err := ann.roster.Remove(ann.node, roster.RemoveParams{Owner: bob.ownerID()}); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(t.Context(), again.dial(t, ann), again.owner); !errors.Is(err, grid.ErrRemoved) {
		t.Errorf("a removed owner: %v", err)
	}
}

func TestInviteAnAdmin(t *testing.T) {
	ann, bob, cat := newMember(t), newPerson(t), newPerson(t)
	code, err := ann.book.Create(CreateParams{
		Grid: ann.roster.View().Grid(), Inviter: ann.node.PeerID(), Valid: maxTestValid, GrantAdmin: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := bob.join(t, ann, code)
	if err != nil || !result.View.IsAdmin(bob.node.PeerID()) {
		t.Fatalf("no admin: %v", err)
	}
	// A plain member cannot; the invite stays unused.
	dan := cat.mustJoin(t, ann)
	if code, err = dan.book.Create(CreateParams{
		Grid: code.Grid, Inviter: dan.node.PeerID(), Valid: maxTestValid, GrantAdmin: true,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := newPerson(t).join(t, dan, code); !errors.Is(err, ErrFailed) {
		t.Errorf("a plain member makes an admin: %v", err)
	}
}

// TestIntroduce: a member whose inviter is away gets in by showing statements.
func TestIntroduce(t *testing.T) {
	ann, bob, cat := newMember(t), newPerson(t), newPerson(t)
	atBob := bob.mustJoin(t, ann)
	atCat := cat.mustJoin(t, atBob)
	atBob.stop()
	wantMember(t, ann, cat, roster.StatusUnknown)
	path := atCat.roster.PathTo(cat.node.PeerID())
	eve := newPerson(t)
	if err := Introduce(t.Context(), eve.dial(t, ann), path); !errors.Is(err, grid.ErrNotMember) {
		t.Errorf("with somebody else's statements: %v", err)
	}
	wantMember(t, ann, cat, roster.StatusUnknown)
	if err := Introduce(t.Context(), eve.dial(t, ann), [][]byte{[]byte("junk")}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("junk: %v", err)
	}
	if err := Introduce(t.Context(), eve.dial(t, ann), [][]byte{make([]byte, roster.MaxPathBytes+1)}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("too much: %v", err)
	}
	if err := Introduce(t.Context(), cat.dial(t, ann), path); err != nil {
		t.Fatal(err)
	}
	wantMember(t, ann, cat, roster.StatusActive)
	if err := ann.roster.Remove(ann.node, roster.RemoveParams{Peer: cat.node.PeerID()}); err != nil {
		t.Fatal(err)
	}
	if err := Introduce(t.Context(), cat.dial(t, ann), path); !errors.Is(err, grid.ErrRemoved) {
		t.Errorf("after removal: %v", err)
	}
}
