package invite

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
	invitev1 "gotong/proto/invite/v1"
)

// JoinParams are the papers of a peer that wants to become a member.
type JoinParams struct {
	Node     identity.NodeKey
	OwnerKey ed25519.PrivateKey // signs the delegation; not kept, not sent
	// Delegation holds the capabilities, epoch and times that the owner gives
	// to this peer; grid and peer are filled in.
	Delegation identity.Delegation
	Record     grid.Record // of this peer; not sent while its Number is 0
	// Disown is what Recover shows besides: the owner's word, by
	// roster.SignDisown, that other peers of theirs were in other hands.
	Disown []byte
}

// JoinResult is what a new member needs to begin: give Statements to
// roster.Import and Records to Records.PutAll.
type JoinResult struct {
	Statements [][]byte
	Records    [][]byte     // not verified yet
	View       *roster.View // of the statements; this peer is active in it, but in an answer to Look
	// Learnt says when statements came to who answered, by its own word.
	Learnt map[roster.Hash]time.Time
}

// Join redeems a code on a join connection to the code's inviter. After a lost
// answer the same peer may do it again. The caller closes conn.
func Join(ctx context.Context, conn JoinConn, code Code, p JoinParams) (JoinResult, error) {
	if peerOf(conn) != code.Inviter {
		return JoinResult{}, fmt.Errorf("join: connected to %s, not to the inviter %s", peerOf(conn).Short(), code.Inviter.Short())
	}
	proof, err := proofOf(conn, code.Secret[:], roleJoiner, code.ID)
	if err != nil {
		return JoinResult{}, err
	}
	redeem := &invitev1.Redeem{Invite: code.ID[:], Proof: proof}
	if err := p.fill(redeem, code); err != nil {
		return JoinResult{}, err
	}
	defer withCancel(ctx, conn)()
	response, err := request(ctx, conn, &invitev1.Request{Ask: &invitev1.Request_Redeem{Redeem: redeem}})
	if err != nil {
		return JoinResult{}, err
	}
	want, err := proofOf(conn, code.Secret[:], roleInviter, code.ID)
	if err != nil {
		return JoinResult{}, err
	}
	if !hmac.Equal(response.GetProof(), want) {
		return JoinResult{}, fmt.Errorf("join: %w: the inviter does not know the secret", ErrAnswer)
	}
	return receive(ctx, conn, code.Grid, p.Node.PeerID())
}

// fill signs the papers for the grid and inviter of the code.
func (p JoinParams) fill(m *invitev1.Redeem, code Code) error {
	d := p.Delegation
	d.Grid, d.Peer = code.Grid, p.Node.PeerID()
	owner := grid.OwnerIDOf(p.OwnerKey.Public().(ed25519.PublicKey))
	m.Delegation = identity.SignDelegation(p.OwnerKey, d).Encode()
	m.Consent = roster.SignConsent(p.Node, roster.Consent{Grid: code.Grid, Owner: owner, Inviter: code.Inviter}).Encode()
	m.Device = roster.SignDevice(p.OwnerKey, p.Node, d)
	if p.Record.Number == 0 {
		return nil
	}
	var err error
	m.Record, err = roster.SignRecord(p.Node, p.Record)
	return err
}

// Recover brings in another peer of an owner who is a member, without an
// invite, by the owner's own word, on a join connection to any member: a second
// device, or the replacement of a lost one. With a disown it does so too when
// the owner, or the member that is asked, was removed by what that takes back.
// The caller closes conn.
func Recover(ctx context.Context, conn JoinConn, g grid.GridID, p JoinParams) (JoinResult, error) {
	d := p.Delegation
	d.Grid = g
	statements := [][]byte{roster.SignDevice(p.OwnerKey, p.Node, d)}
	if len(p.Disown) > 0 {
		statements = append(statements, p.Disown)
	}
	defer withCancel(ctx, conn)()
	_, err := request(ctx, conn, &invitev1.Request{Ask: &invitev1.Request_Introduce{Introduce: &invitev1.Introduce{
		Statements: statements, WantRoster: true,
	}}})
	if err != nil {
		return JoinResult{}, fmt.Errorf("recover: %w", err)
	}
	return receive(ctx, conn, g, p.Node.PeerID())
}

// Introduce shows a member that does not know this peer the statements that
// make it one (roster.PathTo). nil means that it does now. The caller closes
// conn.
func Introduce(ctx context.Context, conn JoinConn, statements [][]byte) error {
	defer withCancel(ctx, conn)()
	_, err := request(ctx, conn, &invitev1.Request{Ask: &invitev1.Request_Introduce{Introduce: &invitev1.Introduce{Statements: statements}}})
	if err != nil {
		return fmt.Errorf("introduce: %w", err)
	}
	return nil
}

// Refresh asks a member that counts this peer as one for its roster, whatever
// this peer's own says. The caller closes conn.
func Refresh(ctx context.Context, conn JoinConn, g grid.GridID, self grid.PeerID) (JoinResult, error) {
	defer withCancel(ctx, conn)()
	_, err := request(ctx, conn, &invitev1.Request{Ask: &invitev1.Request_Introduce{Introduce: &invitev1.Introduce{WantRoster: true}}})
	if err != nil {
		return JoinResult{}, fmt.Errorf("refresh the roster: %w", err)
	}
	return receive(ctx, conn, g, self)
}

// request sends one request and returns the response if it is a yes.
func request(ctx context.Context, conn JoinConn, r *invitev1.Request) (*invitev1.Response, error) {
	if err := deadline(ctx, conn, FrameTimeout); err != nil {
		return nil, err
	}
	if err := writeFrame(conn, r); err != nil {
		return nil, ended(ctx, err)
	}
	var response invitev1.Response
	if err := readFrame(conn, &response); err != nil {
		if errors.Is(err, io.EOF) { // it closes connections beyond its bound
			err = fmt.Errorf("%w (no answer: %w)", ErrBusy, err)
		}
		return nil, ended(ctx, err)
	}
	return &response, errorOf(&response)
}

// ended prefers the reason why ctx ended to the time-out that it caused.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// receive reads the roster and checks that it makes this peer a member.
func receive(ctx context.Context, conn JoinConn, g grid.GridID, self grid.PeerID) (JoinResult, error) {
	result, err := receiveAny(ctx, conn, g)
	if err == nil && result.View.Status(self) != roster.StatusActive {
		return JoinResult{}, fmt.Errorf("%w: the roster does not list this peer", ErrAnswer)
	}
	return result, err
}

// receiveAny reads a roster of the grid.
func receiveAny(ctx context.Context, conn JoinConn, g grid.GridID) (JoinResult, error) {
	got, err := receiveBatches(ctx, conn)
	if err != nil {
		return JoinResult{}, ended(ctx, err)
	}
	view, err := roster.Evaluate(g, got.statements)
	if err != nil {
		return JoinResult{}, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return JoinResult{got.statements, got.records, view, got.learnt}, nil
}
