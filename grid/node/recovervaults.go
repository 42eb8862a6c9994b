package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// choose picks the vault to continue.
func (r *recovery) choose() (*FoundVault, error) {
	var fit []*FoundVault
	for i := range r.vaults {
		v := &r.vaults[i]
		if strings.HasPrefix(v.ID.String(), r.params.Vault) && (r.params.Vault != "" || !v.Alive) {
			fit = append(fit, v)
		}
	}
	switch {
	case len(r.vaults) == 0:
		return nil, &Failure{Kind: controlv1.Kind_KIND_TOO_FEW,
			What:    fmt.Sprintf("none of the %s who answered keeps a vault of this owner", count(int(r.answered.Load()), "friend")),
			Meaning: fmt.Sprintf("nothing is lost by that: %d of %d friends did not answer", r.asked-int(r.answered.Load()), r.asked),
			Next:    "the same command when more friends are here; to begin a new vault: gotong join CODE --phrase-file FILE"}
	case r.params.Vault != "" && len(fit) == 0:
		return nil, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("no vault begins with %q", r.params.Vault), Meaning: "nothing was changed; the vaults are: " + r.vaultList(), Next: "gotong recover --vault ID"}
	case r.params.Vault != "" && len(fit) > 1:
		return nil, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("%d vaults begin with %q", len(fit), r.params.Vault), Meaning: "nothing was changed", Next: "gotong recover --vault with more of the id"}
	case len(fit) == 0:
		return nil, &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "every vault of this owner is written by a device that is up",
			Meaning: "to continue one here would shut that device out; the vaults are: " + r.vaultList(),
			Next:    "gotong recover --vault ID to take it over all the same, or gotong join CODE --phrase-file FILE for a second device"}
	}
	chosen := fit[0]
	if r.params.Vault == "" { // the list is by time, but one that can be read is worth more
		if i := slices.IndexFunc(fit, func(v *FoundVault) bool { return !v.state.IsZero() }); i >= 0 {
			chosen = fit[i]
		}
	}
	if chosen.state.IsZero() {
		return nil, &Failure{Kind: controlv1.Kind_KIND_TOO_FEW, What: fmt.Sprintf("vault %s cannot be read: %s", chosen.ID.Short(), chosen.Problem),
			Meaning: "nothing was changed; what friends keep stays with them",
			Next:    "the same command when more friends are here, or an older state of it: gotong recover --vault " + chosen.ID.Short() + " --head NUMBER"}
	}
	return chosen, nil
}

func (r *recovery) vaultList() string {
	var out []string
	for _, v := range r.vaults {
		out = append(out, fmt.Sprintf("%s of %s, last written %s", v.ID.Short(), v.who(), ageText(time.Since(v.Made))))
	}
	return strings.Join(out, "; ")
}

// who names the device of a vault.
func (v FoundVault) who() string {
	if v.Host != "" {
		return v.Host
	}
	return v.Name
}

// findVaults asks all members for the owner's heads and reads what they say.
func (r *recovery) findVaults(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, findTimeout)
	found, err := r.segments.FindHeads(asking, r.owner())
	cancel()
	if err != nil && !errors.Is(err, storage.ErrTooFewPeers) {
		return err
	}
	for _, heads := range found {
		if v, ok := r.describe(ctx, heads); ok {
			r.vaults = append(r.vaults, v)
		}
	}
	slices.SortFunc(r.vaults, func(a, b FoundVault) int {
		if c := b.Made.Compare(a.Made); c != 0 {
			return c
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return nil
}

// describe reads what one vault is, in the state that was asked for.
func (r *recovery) describe(ctx context.Context, heads storage.VaultHeads) (FoundVault, bool) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	if len(heads.Links) == 0 {
		return FoundVault{}, false
	}
	newest, err := storage.ParseHead(heads.Links[len(heads.Links)-1])
	if err != nil {
		return FoundVault{}, false
	}
	v := FoundVault{ID: heads.Vault, Head: newest.Seq, Made: newest.Created, Links: len(heads.Links), Writer: newest.Signer,
		Name: r.nameOf(newest.Signer), Alive: r.answers(ctx, newest.Signer), links: heads.Links}
	secrets, err := seal.DeriveVault(r.setup.phrase.Entropy(), v.ID)
	if err != nil {
		v.Problem = err.Error()
		return v, true
	}
	from, err := r.wanted(ctx, v.ID, newest)
	if err == nil {
		err = v.read(ctx, r.segments, secrets, from)
	}
	if err != nil && r.params.Head == 0 {
		err = r.readOlder(ctx, &v, secrets, err)
	}
	if err != nil {
		v.Problem = plainReason(err)
	}
	return v, true
}

// read fills in what one head of a vault says.
func (v *FoundVault) read(ctx context.Context, segments vault.Reading, secrets seal.VaultSecrets, from storage.SignedHead) error {
	state, err := vault.Describe(ctx, segments, secrets, from)
	if err != nil {
		return err
	}
	v.State, v.state, v.Snapshots = from.Seq, from, len(state.Snapshots)
	if v.Snapshots > 0 {
		last := state.Snapshots[v.Snapshots-1]
		v.Host, v.Newest = last.Host, last.Created
	}
	if state.Unopened > 0 {
		v.Problem = fmt.Sprintf("%s cannot be opened", count(state.Unopened, "snapshot"))
	}
	return nil
}

// readOlder reads the newest state that can be read, when the newest head says
// nothing and nobody has what it names: whoever had the device wrote it. When
// somebody who does not answer now may have it, that is left to the user.
func (r *recovery) readOlder(ctx context.Context, v *FoundVault, secrets seal.VaultSecrets, why error) error {
	dir := filepath.Join(r.setup.state.dir, "mirror")
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := vault.Mirror(dir, secrets.WithoutRead(), v.links); err != nil {
		return errors.Join(why, err)
	}
	mirror, err := vault.Open(dir, vault.Config{Segments: &vaultSegments{Segments: r.segments.Segments}, Owner: r.owner()})
	if err != nil {
		return errors.Join(why, err)
	}
	older, sure, err := mirror.Readable(ctx)
	if err = errors.Join(err, mirror.Close()); err != nil {
		return errors.Join(why, err)
	}
	switch {
	case older.IsZero():
		return why
	case !sure:
		return fmt.Errorf("%w; head %d of %s can be read", why, older.Seq, older.Created.Format(time.DateTime))
	}
	if err := v.read(ctx, r.segments, secrets, older); err != nil {
		return errors.Join(why, err)
	}
	if v.Problem == "" {
		v.Problem = fmt.Sprintf("its heads above %d say nothing: somebody else may have had the device", older.Seq)
	}
	return nil
}

// wanted returns the head whose state the user wants.
func (r *recovery) wanted(ctx context.Context, id storage.VaultID, newest storage.SignedHead) (storage.SignedHead, error) {
	if r.params.Head == 0 || r.params.Head == newest.Seq {
		return newest, nil
	}
	below := storage.HeadCursor{Seq: r.params.Head}
	for i := range below.ID {
		below.ID[i] = 0xff
	}
	page, err := r.segments.HeadHistory(ctx, r.owner(), id, below)
	if err != nil {
		return storage.SignedHead{}, err
	}
	if len(page) == 0 || page[0].Seq != r.params.Head {
		return storage.SignedHead{}, fmt.Errorf("friends have no head %d of it", r.params.Head)
	}
	return page[0], nil
}
