package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/invite"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
)

// JoinParams is what Join needs besides the home.
type JoinParams struct {
	Config Config
	Save   func(dir string, c Config) error // writes the configuration file
	Code   string                           // what invite printed
	Phrase string                           // of an existing owner; empty: a new one is made
	Fabric peernet.Fabric                   // nil means TCP
	// WriteOnly is as in InitParams.
	WriteOnly bool
}

// Join makes a new peer in dir that the inviter's peer, which must be running,
// admits. Everything is durable when it returns; after an error the home is not
// set up. Errors that the user can act on are *Failure.
func Join(ctx context.Context, dir string, p JoinParams) (Made, error) {
	code, err := invite.ParseCode(strings.TrimSpace(p.Code))
	if err != nil {
		return Made{}, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: "the code is not whole", Meaning: "nothing was changed",
			Next: "copy the whole line that gotong invite printed", Err: err}
	}
	m := maker{config: p.Config, save: p.Save, phrase: p.Phrase, vault: newVault(p.WriteOnly)}
	m.roster = func(s setup) (*roster.Roster, error) {
		if err := probeSpace(s.state.dir); err != nil {
			return nil, err
		}
		result, err := redeem(ctx, s, p, code)
		if err != nil {
			return nil, err
		}
		r, err := keepJoined(s.state, code.Grid, result)
		if err != nil {
			return nil, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "the grid took this peer in, but this machine cannot store that",
				Meaning: "no peer was made here; the invite is used up, for a peer " + s.node.PeerID().Short() + " that will never come",
				Next:    "ask for a new invite", Err: err}
		}
		return r, nil
	}
	return m.setUp(dir)
}

// joinSpace is what a disk must hold for a join: more than the roster and the
// records of a grid of a thousand peers.
const joinSpace = 1 << 20

// probeSpace fails when the disk cannot take what the inviter will send: the
// invite must not be used up for that.
func probeSpace(dir string) error {
	probe := filepath.Join(dir, "probe")
	err := os.WriteFile(probe, make([]byte, joinSpace), 0o600)
	return errors.Join(err, os.Remove(probe))
}

// redeem shows the invite to its inviter. When the answer is lost, because the
// inviter's peer or the network broke off, the invite may be used up for this
// node key, which exists nowhere but in this home in the making: so the same key
// asks again for a while.
func redeem(ctx context.Context, s setup, p JoinParams, code invite.Code) (invite.JoinResult, error) {
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	n, err := peernet.New(peernet.Config{Node: s.node, Directory: nobody{}, Fabric: p.Fabric})
	if err != nil {
		return invite.JoinResult{}, err
	}
	defer n.Close()
	params := invite.JoinParams{
		Node: s.node, OwnerKey: s.phrase.OwnerKey(),
		Delegation: identity.Delegation{Capabilities: capabilities(p.WriteOnly), Epoch: firstEpoch, Created: time.Now()},
		Record:     firstRecord(p.Config, s.node),
	}
	asked := false
	for pause := joinPause; ; pause = min(2*pause, joinPauseMax) {
		result, reached, err := ask(ctx, n, code, params)
		asked = asked || reached
		if err == nil || refused(err) {
			return result, joinFailure(err)
		}
		if !asked && !errors.Is(err, peernet.ErrBusy) {
			return result, noInviter(err)
		}
		select {
		case <-ctx.Done():
			return result, lostAnswer(s.node.PeerID(), err)
		case <-time.After(pause):
		}
	}
}

// ask is one try; reached says that the inviter may have seen the request.
func ask(ctx context.Context, n *peernet.Net, code invite.Code, params invite.JoinParams) (result invite.JoinResult, reached bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := n.DialAny(ctx, code.Addresses, code.Inviter, peernet.ProtoJoin)
	if err != nil {
		return invite.JoinResult{}, false, err
	}
	defer conn.Close()
	result, err = invite.Join(ctx, conn, code, params)
	return result, true, err
}

// refused reports whether an error is the inviter's last word.
func refused(err error) bool {
	for _, final := range []error{
		invite.ErrUnknownInvite, invite.ErrWrongSecret, invite.ErrUsed, invite.ErrExpired, invite.ErrBurnt,
		invite.ErrBadRequest, invite.ErrFailed, invite.ErrAnswer, grid.ErrRemoved, grid.ErrNotMember,
	} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// joinFailure says what a refused invite means.
func joinFailure(err error) error {
	if err == nil {
		return nil
	}
	f := &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "the inviter's peer refused", Meaning: "nothing was changed",
		Next: "ask for a new invite", Err: err}
	if errors.Is(err, grid.ErrRemoved) { // the node key is new, so it is the owner
		f.What, f.Err = "the owner of this recovery phrase was removed from the grid", nil
		f.Next = "gotong join CODE without --phrase-file, as a new owner"
	}
	return f
}

func noInviter(err error) error {
	return &Failure{Kind: controlv1.Kind_KIND_TEMPORARY, What: "the inviter's peer does not answer",
		Meaning: "nothing was changed; the code still works until it expires", Next: "ask the inviter to run gotong up, then gotong join again", Err: err}
}

// lostAnswer says what it means that the inviter broke off and stayed away.
func lostAnswer(self grid.PeerID, err error) error {
	return &Failure{Kind: controlv1.Kind_KIND_TEMPORARY, What: "the inviter's peer broke off and does not come back",
		Meaning: "this home is not set up; the invite may be used up all the same, for a peer " + self.Short() + " that will never come",
		Next:    "gotong join with the same code again; if it is used up, ask for a new invite", Err: err}
}

// firstRecord is what a joining peer says of itself before it first serves: its
// name and pledge, and no address yet.
func firstRecord(c Config, node identity.NodeKey) grid.Record {
	r := baseRecord(c, node.PeerID(), node.BoxKey().PublicKey().Bytes(), nil, time.Now())
	r.Number = 1
	return r
}

// keepJoined stores what the inviter answered.
func keepJoined(s state, g grid.GridID, result invite.JoinResult) (*roster.Roster, error) {
	r, err := roster.Import(s.roster(), g, result.Statements)
	if err != nil {
		return nil, err
	}
	records, err := roster.OpenRecords(s.records(), g)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if _, err := records.PutAll(result.Records, r.View()); err != nil {
		// The grid itself has them; a peer without them asks.
		return r, records.Close()
	}
	return r, records.Close()
}

// nobody is the directory of a peer that is not a member yet.
type nobody struct{}

func (nobody) Status(grid.PeerID) peernet.Standing { return peernet.Unknown }
func (nobody) Addresses(grid.PeerID) []string      { return nil }
func (nobody) Members() []grid.PeerID              { return nil }
func (nobody) Changed() <-chan struct{}            { return nil }
