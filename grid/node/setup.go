package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
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
	// WriteOnly leaves the read key off the machine, and delegates nothing but
	// the capability write: see capabilities.
	WriteOnly bool
}

// capabilities are those of a device's first delegation. What a write-only
// device has cannot read what is no longer on it, expire what friends keep, or
// remove anybody; its owner does that from another device, or with the phrase.
func capabilities(writeOnly bool) grid.Capability {
	if writeOnly {
		return grid.CapWrite
	}
	return grid.CapAll
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
	m := maker{config: p.Config, save: p.Save, phrase: p.Phrase, vault: newVault(p.WriteOnly)}
	m.roster = func(s setup) (*roster.Roster, error) {
		name := p.GridName
		if name == "" {
			name = p.Config.Name
		}
		r, err := roster.Create(s.state.roster(), roster.CreateParams{
			Name: name, OwnerKey: s.phrase.OwnerKey(), Node: s.node,
			Delegation: identity.Delegation{Capabilities: capabilities(p.WriteOnly), Epoch: firstEpoch, Created: time.Now()},
		})
		if errors.Is(err, roster.ErrName) {
			return nil, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: "name of the grid", Next: "gotong init --grid NAME", Err: err}
		}
		return r, err
	}
	return m.setUp(dir)
}

// firstEpoch is the epoch of a peer's first delegation; recover raises it.
const firstEpoch = 1

// setup is a home in the making.
type setup struct {
	state  state
	node   identity.NodeKey
	phrase identity.Phrase
}

// maker says how a home is made. Roster comes late: it may use up an invite.
type maker struct {
	config Config
	save   func(dir string, c Config) error
	phrase string // of an existing owner; empty: a new one is made
	vault  func(setup) error
	roster func(setup) (*roster.Roster, error)
}

// setUp makes a home and says, when it cannot, that there is none.
func (m maker) setUp(dir string) (Made, error) {
	made, err := m.make(dir)
	var known *Failure
	if err != nil && !errors.As(err, &known) {
		err = &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "cannot set up a peer in " + dir, Meaning: "no peer was made there",
			Next: "put right what is named above, then the same command again", Err: err}
	}
	return made, err
}

// make makes the keys, then the vault and the roster, then the configuration,
// and last the rename that makes all of it real.
func (m maker) make(dir string) (Made, error) {
	h, err := makeHome(dir)
	if err != nil {
		return Made{}, err
	}
	release, err := h.lock()
	if err != nil {
		return Made{}, err
	}
	defer release()
	if err := h.mustBeNew(); err != nil {
		return Made{}, err
	}
	newOwner := m.phrase == ""
	s := setup{}
	if s.phrase, err = openPhrase(m.phrase); err != nil {
		return Made{}, err
	}
	if s.state, err = h.begin(s.owner()); err != nil {
		return Made{}, err
	}
	s.node, err = identity.LoadOrCreateNodeKey(s.state.nodeKey())
	if errors.Is(err, identity.ErrKeyFile) { // an earlier try left it, and a bad disk broke it
		if err = os.Remove(s.state.nodeKey()); err == nil {
			s.node, err = identity.LoadOrCreateNodeKey(s.state.nodeKey())
		}
	}
	if err != nil {
		return Made{}, err
	}
	if m.vault != nil {
		if err := m.vault(s); err != nil {
			return Made{}, err
		}
	}
	r, err := m.roster(s)
	if err != nil {
		return Made{}, err
	}
	view := r.View()
	if err := r.Close(); err != nil {
		return Made{}, err
	}
	if err := m.save(dir, m.config); err != nil {
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

// owner returns whose home it will be.
func (s setup) owner() grid.OwnerID {
	return grid.OwnerIDOf(s.phrase.OwnerKey().Public().(ed25519.PublicKey))
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

// newVault makes the empty vault of a device.
func newVault(writeOnly bool) func(setup) error {
	return func(s setup) error {
		var id storage.VaultID
		if _, err := rand.Read(id[:]); err != nil {
			return err
		}
		secrets, err := seal.DeriveVault(s.phrase.Entropy(), id)
		if err != nil {
			return err
		}
		if writeOnly {
			secrets = secrets.WithoutRead()
		}
		return vault.Create(s.state.vault(), secrets)
	}
}
