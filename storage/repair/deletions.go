package repair

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/shardstore"
)

const (
	// askForDeletions is how many members a round asks, for each vault, for
	// deletions that this peer missed; at the start all are asked.
	askForDeletions    = 3
	deletionTimeout    = 30 * time.Second
	deletionsAtOnce    = 8
	deletedAskedAtMost = 4 // of those who say that a segment is deleted, asked for the proof
)

// catchUp asks every member for what was deleted while this peer was away, as
// soon as one is here.
func (r *Repairer) catchUp(ctx context.Context) {
	ticker := time.NewTicker(firstLook)
	defer ticker.Stop()
	for waited := time.Duration(0); waited < min(r.cfg().Interval, firstRound); waited += firstLook {
		if scene := r.scene(time.Now()); len(scene.here()) > 0 {
			r.fetchDeletions(ctx, scene)
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// here returns the other members that are alive.
func (s Scene) here() []grid.PeerID {
	var out []grid.PeerID
	for id, p := range s.Peers {
		if id != s.Self && p.State == grid.StateAlive {
			out = append(out, id)
		}
	}
	return out
}

// fetchDeletions asks members for deletions of the vaults held here: all of the
// members the first time, then a few at random.
func (r *Repairer) fetchDeletions(ctx context.Context, scene Scene) {
	here := scene.here()
	var group errgroup.Group
	group.SetLimit(deletionsAtOnce)
	for _, v := range r.cfg().Store.Vaults() {
		rand.Shuffle(len(here), func(i, j int) { here[i], here[j] = here[j], here[i] })
		limit := len(here)
		if r.isSynced(v.Vault) {
			limit = min(limit, askForDeletions)
		}
		asked := append([]grid.PeerID(nil), here[:limit]...)
		group.Go(func() error {
			for _, peer := range asked {
				// One that holds nothing of the vault may refuse: it knows no more.
				if o := outcomeOf(r.fetchFrom(ctx, peer, v)); o != OutcomeAway && o != OutcomeTimeout {
					r.setSynced(v.Vault)
				}
			}
			return nil
		})
	}
	_ = group.Wait() // who does not answer is asked again in a later round
}

func (r *Repairer) isSynced(vault storage.VaultID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.synced[vault]
}

func (r *Repairer) setSynced(vault storage.VaultID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.synced[vault] = true
}

// fetchFrom takes the deletions of a vault over from one member. What is stored
// decides itself whether they are valid.
func (r *Repairer) fetchFrom(ctx context.Context, peer grid.PeerID, v shardstore.HeldVault) error {
	ctx, cancel := context.WithTimeout(ctx, deletionTimeout)
	defer cancel()
	store, err := r.cfg().Grid.Shards(peer)
	if err != nil {
		return err
	}
	return storage.EachDeletions(v.Owner, v.Vault, v.Deletions,
		func(after uint64) ([][]byte, error) { return store.Deletions(ctx, v.Owner, v.Vault, after) },
		func(raw [][]byte, _ []storage.SignedDeletion) { r.takeDeletions(ctx, peer, raw) })
}

// takeDeletions stores deletions, together or, when one is refused, each.
func (r *Repairer) takeDeletions(ctx context.Context, from grid.PeerID, raw [][]byte) {
	if r.cfg().Store.PutDeletions(ctx, raw) == nil {
		return
	}
	for i := range raw {
		if err := r.cfg().Store.PutDeletions(ctx, raw[i:i+1]); err != nil {
			r.cfg().Logger.Debug("deletion not taken", "from", from, "err", err)
		}
	}
}

// dropDeleted leaves out the segments that some member holds for deleted, if a
// signed deletion proves it. A claim without proof changes nothing.
func (r *Repairer) dropDeleted(ctx context.Context, patients []*patient, scene Scene) ([]*patient, error) {
	type vault struct {
		owner grid.OwnerID
		id    storage.VaultID
	}
	claimed := map[vault][]*patient{}
	for _, p := range patients {
		if !p.verdict.Claimed {
			continue
		}
		if p.vault.IsZero() {
			header, err := r.cfg().Segments.Header(ctx, p.id, p.hints)
			if err != nil {
				continue
			}
			p.vault, p.owner = header.Vault, header.Owner
		}
		v := vault{p.owner, p.vault}
		claimed[v] = append(claimed[v], p)
	}
	deleted := map[*patient]bool{}
	for v, group := range claimed {
		unproven := slices.ContainsFunc(group, func(p *patient) bool { return !r.cfg().Store.Deleted(v.owner, v.id, p.id) })
		for _, peer := range claimants(group) {
			if !unproven {
				break
			}
			_ = r.fetchFrom(ctx, peer, shardstore.HeldVault{Vault: v.id, Owner: v.owner}) // no proof, no effect
		}
		for _, p := range group {
			deleted[p] = r.cfg().Store.Deleted(v.owner, v.id, p.id)
		}
	}
	out := patients[:0]
	var lost []Row
	for _, p := range patients {
		if !deleted[p] {
			out = append(out, p)
			continue
		}
		r.close(p.id)
		if p.row != nil && !p.row.Lost {
			row := *p.row
			row.Lost, row.Complete, row.Committed, row.SurvivesSites = true, false, false, -1
			lost = append(lost, row)
			r.cfg().Logger.Warn("a segment that the vault needs was deleted by another device of the owner", "segment", p.id.Short())
		}
	}
	if len(lost) > 0 {
		return out, r.cfg().Rows.Observe(ctx, lost)
	}
	return out, nil
}

// claimants returns some of those who say that segments are deleted.
func claimants(patients []*patient) []grid.PeerID {
	var out []grid.PeerID
	seen := map[grid.PeerID]bool{}
	for _, p := range patients {
		for _, copies := range p.evidence.Copies {
			for _, c := range copies {
				if (c.State == storage.ShardTrash || c.State == storage.ShardDeleted) && !seen[c.Peer] && len(out) < deletedAskedAtMost {
					seen[c.Peer] = true
					out = append(out, c.Peer)
				}
			}
		}
	}
	return out
}
