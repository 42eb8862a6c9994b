package segments

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
)

// headsSent is how many of the newest links are handed over each time: more
// than one, so that a holder that was away for a while has no gap.
const headsSent = 8

// PublishHeads hands consecutive signed heads, oldest first, to the holders
// that keep heads of their vault, and returns how many others have the newest
// on disk. It is published, and err nil, when two have it, or all that can be
// reached, if at least one. It waits for the others unless they take much
// longer.
//
// storage.ErrStaleEpoch and storage.ErrHeadFork mean that a holder showed a
// signed head that contradicts the given ones, and that this device must
// stop: another one writes the vault.
func (s *Segments) PublishHeads(ctx context.Context, raw [][]byte) (acks int, err error) {
	raw = raw[max(0, len(raw)-headsSent):]
	heads, err := storage.CheckLinks(raw)
	if err != nil {
		return 0, fmt.Errorf("publish heads: %w", err)
	}
	newest := heads[len(heads)-1]
	holders := placement.HeadHolders(newest.Vault, s.others(), placement.MaxHeadHolders)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	question := func(ctx context.Context, store storage.RemoteShards) (struct{}, error) {
		err := store.PutHeads(ctx, raw)
		if is(err, storage.ErrStaleEpoch, storage.ErrHeadFork) && !contradicted(ctx, store, heads) {
			err = fmt.Errorf("%w: it says %q and shows no such head", storage.ErrDenied, err)
		}
		return struct{}{}, err
	}
	var failed causes
	err = gather(ctx, s, holders, s.cfg.IdleTimeout, question, func(a found[struct{}]) error {
		switch {
		case a.err == nil:
			acks++
		case is(a.err, storage.ErrStaleEpoch, storage.ErrHeadFork):
			return a.err
		default:
			failed.add(a.peer, a.err)
		}
		return nil
	})
	if err == nil && acks == 0 {
		err = &TooFewHeadHolders{Asked: len(holders), Causes: failed}
	}
	if err != nil {
		return acks, fmt.Errorf("publish head %d: %w", newest.Seq, err)
	}
	return acks, nil
}

// contradicted reports whether a store shows a head, signed for the same vault,
// that cannot stand beside the given ones or is newer. The word of one holder
// alone must not stop an owner from writing.
func contradicted(ctx context.Context, store storage.RemoteShards, heads []storage.SignedHead) bool {
	newest := heads[len(heads)-1]
	vaults, err := store.Heads(ctx, newest.Owner)
	if err != nil {
		return false
	}
	for _, v := range vaults {
		for _, raw := range slices.Concat(v.Links, v.Forks) {
			theirs, err := storage.ParseHead(raw)
			if err != nil || theirs.Vault != newest.Vault || theirs.Owner != newest.Owner {
				continue
			}
			other := func(ours storage.SignedHead) bool {
				return ours.Epoch == theirs.Epoch && ours.Seq == theirs.Seq && ours.ID != theirs.ID
			}
			if theirs.Newer(newest) || slices.ContainsFunc(heads, other) {
				return true
			}
		}
	}
	return false
}

// others returns the members except this peer.
func (s *Segments) others() []grid.PeerID {
	return slices.DeleteFunc(slices.Clone(s.cfg.Holders.Members()), func(peer grid.PeerID) bool { return peer == s.self })
}

// TooFewHeadHolders says that no other peer took a head, or gave any. It is
// storage.ErrTooFewPeers and all its causes.
type TooFewHeadHolders struct {
	Asked  int
	Causes []PeerError
}

// Error names how many were asked, and the reasons.
func (e *TooFewHeadHolders) Error() string {
	text := fmt.Sprintf("none of %d other peers answered", e.Asked)
	for i, c := range e.Causes {
		if i == maxCausesShown {
			return fmt.Sprintf("%s; and %d more", text, len(e.Causes)-i)
		}
		text += fmt.Sprintf("; %s: %v", c.Peer.Short(), bare(c.Err))
	}
	return text
}

// Unwrap returns storage.ErrTooFewPeers and the causes.
func (e *TooFewHeadHolders) Unwrap() []error {
	out := []error{storage.ErrTooFewPeers}
	for _, c := range e.Causes {
		out = append(out, c.Err)
	}
	return out
}

// FindHeads asks all members for the heads of an owner's vaults, waits until
// each has answered or took much longer than the others, and returns for each
// vault the chain that stands above all others, with what contradicts it. Every
// head was verified. Without any other member that answers the error is a
// *TooFewHeadHolders.
func (s *Segments) FindHeads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	members := slices.Clone(s.cfg.Holders.Members())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	question := func(ctx context.Context, store storage.RemoteShards) ([]storage.VaultHeads, error) {
		return store.Heads(ctx, owner)
	}
	heads := map[storage.VaultID]map[storage.HeadID]storage.SignedHead{}
	var failed causes
	answered := 0
	err := gather(ctx, s, members, s.cfg.AskTimeout, question, func(a found[[]storage.VaultHeads]) error {
		switch {
		case a.err != nil:
			failed.add(a.peer, a.err)
		case a.peer != s.self:
			answered++
		}
		s.addHeads(heads, a.peer, owner, a.answer)
		return nil
	})
	if err == nil && answered == 0 {
		err = &TooFewHeadHolders{Asked: len(s.others()), Causes: failed}
	}
	if err != nil {
		return nil, fmt.Errorf("find heads: %w", err)
	}
	return mergeHeads(heads), nil
}

// maxHeadsMerged bounds the heads of one vault that are held at once, from all
// members together.
const maxHeadsMerged = 64 * (storage.MaxHeadLinks + storage.MaxHeadForks)

// addHeads takes in what one member gave, verified.
func (s *Segments) addHeads(heads map[storage.VaultID]map[storage.HeadID]storage.SignedHead, peer grid.PeerID, owner grid.OwnerID, vaults []storage.VaultHeads) {
	for _, v := range vaults {
		for _, raw := range slices.Concat(v.Links, v.Forks) {
			head, err := storage.ParseHead(raw)
			if err == nil && (head.Owner != owner || head.Vault != v.Vault) {
				err = errors.New("head of another vault")
			}
			if err != nil {
				s.cfg.Logger.Warn("peer gave a bad head", "peer", peer, "vault", v.Vault, "err", err)
				s.problems.add(peer, storage.ShardID{Index: -1}, fmt.Sprintf("gave a bad head of vault %s: %v", v.Vault.Short(), err))
				continue
			}
			if heads[v.Vault] == nil {
				heads[v.Vault] = map[storage.HeadID]storage.SignedHead{}
			}
			if len(heads[v.Vault]) < maxHeadsMerged {
				heads[v.Vault][head.ID] = head
			}
		}
	}
}

// mergeHeads makes one chain of the heads of each vault. Of two that contradict
// each other in one epoch the first by id stands, on every machine.
func mergeHeads(heads map[storage.VaultID]map[storage.HeadID]storage.SignedHead) []storage.VaultHeads {
	out := make([]storage.VaultHeads, 0, len(heads))
	for vault, known := range heads {
		ordered := make([]storage.SignedHead, 0, len(known))
		for _, head := range known {
			ordered = append(ordered, head)
		}
		slices.SortFunc(ordered, func(a, b storage.SignedHead) int {
			return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq), bytes.Compare(a.ID[:], b.ID[:]))
		})
		var chain storage.HeadChain[[]byte]
		for _, head := range ordered {
			link := storage.LinkOf(head, head.Raw)
			switch verdict, _ := chain.Judge(link); verdict { // the error repeats the verdict
			case storage.HeadPlaced:
				chain.Place(link)
			case storage.HeadFork:
				chain.AddFork(link)
			}
		}
		v := storage.VaultHeads{Vault: vault}
		for _, link := range chain.Links() {
			v.Links = append(v.Links, link.Body)
		}
		for _, link := range chain.Forks() {
			v.Forks = append(v.Forks, link.Body)
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b storage.VaultHeads) int { return bytes.Compare(a.Vault[:], b.Vault[:]) })
	return out
}
