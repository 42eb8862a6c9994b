package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// InitParams is what Init needs besides the home.
type InitParams struct {
	Config   Config
	Save     func(dir string, c Config) error // writes the configuration file
	GridName string                           // empty: after the peer
	Phrase   string                           // of an existing owner; empty: a new one is made
}

// Made tells what Init or Join made.
type Made struct {
	Peer     grid.PeerID
	Owner    grid.OwnerID
	Grid     grid.GridID
	GridName string
	Phrase   string // the recovery phrase of a new owner; stored nowhere
	NewOwner bool
}

// Init founds a grid with a new peer in dir. Everything is durable when it
// returns; after an error the home is not set up. Errors that the user can act
// on are *Failure.
func Init(ctx context.Context, dir string, p InitParams) (Made, error) {
	return setUp(dir, p.Config, p.Save, p.Phrase, func(s setup) (*roster.Roster, error) {
		name := p.GridName
		if name == "" {
			name = p.Config.Name
		}
		r, err := roster.Create(s.state.roster(), roster.CreateParams{
			Name: name, OwnerKey: s.phrase.OwnerKey(), Node: s.node,
			Delegation: identity.Delegation{Capabilities: grid.CapAll, Epoch: firstEpoch, Created: time.Now()},
		})
		if errors.Is(err, roster.ErrName) {
			return nil, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: "name of the grid", Next: "gotong init --grid NAME", Err: err}
		}
		return r, err
	})
}

// firstEpoch is the epoch of a peer's first delegation; recover raises it.
const firstEpoch = 1

// setup is a home in the making.
type setup struct {
	state  state
	node   identity.NodeKey
	phrase identity.Phrase
}

// setUp makes a home and says, when it cannot, that there is none.
func setUp(dir string, c Config, save func(string, Config) error, phraseText string, makeRoster func(setup) (*roster.Roster, error)) (Made, error) {
	made, err := makePeer(dir, c, save, phraseText, makeRoster)
	var known *Failure
	if err != nil && !errors.As(err, &known) {
		err = &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "cannot set up a peer in " + dir, Meaning: "no peer was made there",
			Next: "put right what is named above, then the same command again", Err: err}
	}
	return made, err
}

// makePeer makes the vault's secrets and the keys, then what makes the roster,
// which may use up an invite and so comes late, then the configuration, and last
// the rename that makes all of it real.
func makePeer(dir string, c Config, save func(string, Config) error, phraseText string, makeRoster func(setup) (*roster.Roster, error)) (Made, error) {
	h, err := makeHome(dir)
	if err != nil {
		return Made{}, err
	}
	release, err := h.lock()
	if err != nil {
		return Made{}, err
	}
	defer release()
	s := setup{}
	if s.state, err = h.begin(); err != nil {
		return Made{}, err
	}
	newOwner := phraseText == ""
	if s.phrase, err = openPhrase(phraseText); err != nil {
		return Made{}, err
	}
	if s.node, err = identity.LoadOrCreateNodeKey(s.state.nodeKey()); err != nil {
		return Made{}, err
	}
	if err := makeVault(s.state.vault(), s.phrase); err != nil {
		return Made{}, err
	}
	r, err := makeRoster(s)
	if err != nil {
		return Made{}, err
	}
	view := r.View()
	if err := r.Close(); err != nil {
		return Made{}, err
	}
	if err := save(dir, c); err != nil {
		return Made{}, fmt.Errorf("configuration: %w", err)
	}
	if err := h.finish(s.state); err != nil {
		return Made{}, err
	}
	shown := ""
	if newOwner { // who gave a phrase has it
		shown = s.phrase.String()
	}
	member, _ := view.Member(s.node.PeerID())
	return Made{Peer: member.ID, Owner: member.Owner, Grid: view.Grid(), GridName: view.Name(),
		Phrase: shown, NewOwner: newOwner}, nil
}

// openPhrase reads a phrase, or makes a new one when there is no text.
func openPhrase(text string) (identity.Phrase, error) {
	if text == "" {
		return identity.NewPhrase()
	}
	phrase, err := identity.ParsePhrase(text)
	if err != nil {
		return identity.Phrase{}, &Failure{Kind: controlv1.Kind_KIND_WRONG_PHRASE, What: "recovery phrase",
			Meaning: "nothing was changed", Next: "compare each word with the paper", Err: err}
	}
	return phrase, nil
}

// makeVault makes the empty vault of this device.
func makeVault(dir string, phrase identity.Phrase) error {
	var id storage.VaultID
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	secrets, err := seal.DeriveVault(phrase.Entropy(), id)
	if err != nil {
		return err
	}
	return vault.Create(dir, secrets)
}
