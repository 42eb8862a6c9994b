package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/invite"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// Contact is a member through which an owner comes back.
type Contact struct {
	Peer      grid.PeerID
	Addresses []string // HOST:PORT
}

// RecoverParams is what Recover needs besides the home.
type RecoverParams struct {
	Config   Config
	Save     func(dir string, c Config) error // writes the configuration file
	Contacts []Contact                        // tried in order
	Grid     grid.GridID                      // zero: whatever the contact says
	Phrase   string
	// Vault is the id of the vault to continue, or the beginning of one. Empty:
	// the newest that no other device which answers writes.
	Vault string
	// Head is the number of the head whose state the vault has from now on; 0
	// means the newest.
	Head uint64
	// WriteOnly is as in InitParams.
	WriteOnly bool
	// RemoveOld takes the device that wrote the vault until now out of the grid.
	RemoveOld bool
	// Undo decides about what other devices of the owner signed within UndoWithin
	// and the owner may not have: it returns those devices whose word is taken
	// back. needed says that without that nobody is left to recover from. It may
	// be called again when more comes to light. Nil: none.
	Undo       func(found []DoubtfulDevice, needed bool) ([]grid.PeerID, error)
	UndoWithin time.Duration  // zero: the retention floor
	Fabric     peernet.Fabric // nil means TCP
}

// FoundVault is one vault of the owner, as friends know it.
type FoundVault struct {
	ID        storage.VaultID
	Host      string    // of the newest snapshot; empty when it cannot be told
	Newest    time.Time // when the newest snapshot was made; zero: none, or it cannot be told
	Snapshots int       // in the state that was read
	Head      uint64    // number of the newest head
	State     uint64    // number of the head whose state was read; 0 when none could be
	Made      time.Time // when the newest head was signed, by the clock of its device
	Links     int       // heads that friends still have
	Writer    grid.PeerID
	Name      string // of the device that wrote it last
	Alive     bool   // that device answers
	Problem   string // what stands in the way of reading it; empty: nothing
	Adopted   bool
	Removed   bool // that device is no member from now on

	links [][]byte
	state storage.SignedHead
}

// Recovered tells what Recover found and made.
type Recovered struct {
	Made
	Vaults   []FoundVault // newest first
	Answered int          // members of other owners that were asked for heads and answered
	Members  int          // of other owners, that were asked
	HeadedBy int          // members that know by now that this device writes the vault
	Undone   []DoubtfulDevice
	Dropped  []string // names of those who are no members any more because an undone device let them in
}

// Recover makes a new peer in dir for an owner who is a member, with nothing but
// the phrase and a member's id and address. It continues one of the owner's
// vaults under a delegation of a higher epoch, so holders take nothing more from
// the device that wrote it before. Everything is durable when it returns; after
// an error the home is not set up, and Recover may be called again. The vaults
// found are returned with an error that concerns the choice among them. Errors
// that the user can act on are *Failure.
func Recover(ctx context.Context, dir string, p RecoverParams) (Recovered, error) {
	if p.Phrase == "" {
		return Recovered{}, &Failure{Kind: controlv1.Kind_KIND_WRONG_PHRASE, What: "no recovery phrase was given", Meaning: "nothing was changed",
			Next: "gotong recover --phrase-file FILE"}
	}
	if p.RemoveOld && p.WriteOnly {
		return Recovered{}, usage("a write-only device cannot remove another one", "the same command without --remove-old, then gotong remove on a device that is an admin")
	}
	r := &recovery{params: p}
	defer r.close()
	m := maker{config: p.Config, save: p.Save, phrase: p.Phrase}
	m.roster = func(s setup) (*roster.Roster, error) { return r.run(ctx, s) }
	made, err := m.setUp(dir)
	out := Recovered{Made: made, Vaults: r.vaults, Answered: int(r.answered.Load()), Members: r.asked, Undone: r.undone, Dropped: r.dropped}
	if err != nil {
		return out, err
	}
	out.HeadedBy = r.publish(ctx, dir)
	return out, nil
}

const (
	// contactTimeout bounds the exchange with one contact.
	contactTimeout = 30 * time.Second
	// findTimeout bounds the search for heads, describeTimeout the reading of
	// one vault's catalogue, and publishTimeout the handing out of the first head.
	findTimeout     = time.Minute
	describeTimeout = 2 * time.Minute
	publishTimeout  = 30 * time.Second
	// probeTimeout bounds the question whether the old device is there.
	probeTimeout = 5 * time.Second
	// epochTries bounds how often a higher epoch is asked for.
	epochTries = 4
)

// run does all that comes before the home is made real.
func (r *recovery) run(ctx context.Context, s setup) (*roster.Roster, error) {
	r.setup = s
	if err := probeSpace(s.state.dir); err != nil {
		return nil, err
	}
	if err := r.join(ctx); err != nil {
		return nil, err
	}
	if err := r.hearOthers(ctx); err != nil {
		return nil, err
	}
	r.countFriends()
	r.noteDropped()
	if err := r.findVaults(ctx); err != nil {
		return nil, err
	}
	chosen, err := r.choose()
	if err != nil {
		return nil, err
	}
	if err := r.raiseEpoch(ctx, chosen.links); err != nil {
		return nil, err
	}
	if err := r.adopt(chosen); err != nil {
		return nil, err
	}
	if err := r.removeOld(chosen); err != nil {
		return nil, err
	}
	chosen.Adopted = true
	r.kept = true
	return r.roster, nil
}

// removeOld signs, if that is wanted, that the device which wrote the vault is no
// member any more. Others learn it when this peer is up.
func (r *recovery) removeOld(v *FoundVault) error {
	view := r.roster.View()
	old, member := view.Member(v.Writer)
	v.Removed = view.Status(v.Writer) == roster.StatusRemoved
	if !r.params.RemoveOld || !member || old.Owner != r.owner() {
		return nil
	}
	if err := r.roster.Remove(r.setup.node, roster.RemoveParams{Peer: v.Writer}); err != nil {
		return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "cannot remove " + v.Name, Meaning: "nothing was changed",
			Next: "the same command without --remove-old; an admin can remove it then", Err: err}
	}
	v.Removed = true
	return nil
}

// join makes this peer a member through the first contact that helps.
func (r *recovery) join(ctx context.Context) error {
	if err := r.listen(); err != nil {
		return err
	}
	var errs []error
	for _, contact := range r.params.Contacts {
		err := r.joinThrough(ctx, contact)
		if err == nil {
			return r.enter()
		}
		var known *Failure
		if errors.As(err, &known) { // the user's own word
			return err
		}
		errs = append(errs, fmt.Errorf("%s: %w", contact.Peer.Short(), err))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return contactFailure(errors.Join(errs...))
}

// joinThrough makes this peer a member through one contact. If malware had the
// owner himself removed, that is taken back with the same word.
func (r *recovery) joinThrough(ctx context.Context, contact Contact) error {
	d, err := r.find(ctx, contact)
	removed := errors.Is(err, grid.ErrRemoved)
	var seen invite.JoinResult
	if removed {
		d, seen, err = r.look(ctx, contact.Peer, contact.Addresses)
	}
	if err == nil && !r.params.Grid.IsZero() && d.Grid != r.params.Grid {
		err = fmt.Errorf("it belongs to grid %s, not %s", d.Grid.Short(), r.params.Grid.Short())
	}
	if err != nil {
		return err
	}
	r.contact, r.grid, r.epoch = contact, d.Grid, d.Epoch+1
	if !removed {
		if err := r.introduce(ctx); err != nil {
			return err
		}
		seen = r.result
	}
	r.learn(seen)
	changed, err := r.settleDoubts(seen.View)
	switch {
	case err != nil:
		return err
	case changed:
		return r.introduce(ctx)
	case removed:
		return grid.ErrRemoved
	}
	return nil
}

// contactFailure says why no contact brought this peer in.
func contactFailure(err error) error {
	switch {
	case err == nil:
		return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: "no member to ask", Meaning: "nothing was changed", Next: "gotong recover PEERID@HOST:PORT"}
	case errors.Is(err, grid.ErrRemoved):
		return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "the owner of this recovery phrase was removed from the grid",
			Meaning: "friends talk to you no more; what they keep for you they keep for a while", Next: "ask a friend who did it; if it was somebody with your own device: the same command with --undo-removals --undo-within 1000h"}
	case errors.Is(err, grid.ErrNotMember):
		return &Failure{Kind: controlv1.Kind_KIND_WRONG_PHRASE, What: "nobody with this recovery phrase is known there",
			Meaning: "nothing was changed; these are the words of another owner, or that friend is in another grid",
			Next:    "compare the words with the paper, try another friend, or begin anew: gotong join CODE", Err: err}
	}
	return &Failure{Kind: controlv1.Kind_KIND_TEMPORARY, What: "no friend who could bring this device in answers", Meaning: "nothing was changed",
		Next: "ask a friend to run gotong up, then the same command again, or another friend's id and address", Err: err}
}

// raiseEpoch makes sure that the delegation stands above every head that the
// chosen vault has, and above every other delegation by the owner. A member that
// was away may not have known them all.
func (r *recovery) raiseEpoch(ctx context.Context, links [][]byte) error {
	for range epochTries {
		above := r.epoch
		newest, ok := r.roster.View().NewestDelegation(r.owner())
		if d, _, err := identity.OpenDelegation(newest); ok && err == nil && d.Peer != r.setup.node.PeerID() {
			above = max(above, d.Epoch+1)
		}
		for _, raw := range links {
			if head, err := storage.ParseHead(raw); err == nil {
				above = max(above, head.Epoch+1)
			}
		}
		if above == r.epoch {
			return nil
		}
		r.epoch = above
		if err := r.introduce(ctx); err != nil {
			return contactFailure(err)
		}
		if _, err := r.roster.Merge(r.result.Statements); err != nil {
			return err
		}
	}
	return errors.New("the epoch of the owner's delegations keeps rising; is another recovery running?")
}

// adopt makes the vault of the new home.
func (r *recovery) adopt(v *FoundVault) error {
	self, ok := r.roster.View().Member(r.setup.node.PeerID())
	if !ok {
		return grid.ErrNotMember
	}
	secrets, err := seal.DeriveVault(r.setup.phrase.Entropy(), v.ID)
	if err != nil {
		return err
	}
	if r.params.WriteOnly {
		secrets = secrets.WithoutRead()
	}
	return vault.Adopt(r.setup.state.vault(), secrets, vault.TakeOver{
		Node: r.setup.node.Private(), Owner: self.Owner, Grant: self.Signed.Encode(), Floor: r.params.Config.Retention.Floor,
		Links: v.links, State: v.state,
	})
}
