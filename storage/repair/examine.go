package repair

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
)

// examine asks the members and judges. Segments that turn out to be deleted are
// left out.
func (r *Repairer) examine(ctx context.Context, patients []*patient, scene Scene) ([]*patient, error) {
	if len(patients) == 0 {
		return nil, nil
	}
	asks := make([]segments.Ask, len(patients))
	for i, p := range patients {
		asks[i] = segments.Ask{ID: p.id, N: p.redundancy.N, Holders: p.hints, All: r.wide || r.letsGo(p)}
	}
	surveys, err := r.cfg().Segments.Survey(ctx, asks)
	if err != nil {
		return nil, fmt.Errorf("survey: %w", err)
	}
	if len(surveys) != len(patients) {
		return nil, fmt.Errorf("survey: %d answers to %d questions", len(surveys), len(patients))
	}
	now := time.Now()
	self := scene.Peers[r.cfg().Self]
	for i, p := range patients {
		if p.owner == (grid.OwnerID{}) {
			p.owner = self.Owner
		}
		s := surveys[i]
		p.hints = s.Holders
		p.evidence = Evidence{ID: p.id, Redundancy: p.redundancy, Owner: p.owner, Copies: s.Shards, Refused: s.Refused, Silent: s.Silent}
		p.verdict, p.looked = Judge(p.evidence, scene), now
		p.verdict.Claimed = p.verdict.Claimed || s.Deleted
		r.claims.offer(p.evidence, r.cfg().Self)
	}
	r.hear(patients, scene)
	return r.dropDeleted(ctx, patients, scene)
}

// hear notes who answered.
func (r *Repairer) hear(patients []*patient, scene Scene) {
	answered, silent := map[grid.PeerID]bool{}, map[grid.PeerID]bool{}
	for _, p := range patients {
		for _, copies := range p.evidence.Copies {
			for _, c := range copies {
				answered[c.Peer] = true
			}
		}
		for _, h := range p.evidence.Refused {
			answered[h.Peer] = true
		}
		for _, h := range p.evidence.Silent {
			if scene.Peers[h.Peer].State == grid.StateAlive {
				silent[h.Peer] = true
			}
		}
	}
	r.memory.heard(answered, silent, scene.Now)
}

// observe writes back to the own vault what is true now and was not known.
func (r *Repairer) observe(ctx context.Context, patients []*patient, scene Scene) error {
	var rows []Row
	for _, p := range patients {
		if p.row == nil {
			continue
		}
		seen := p.seen(scene)
		r.note(p)
		if !slices.Equal(seen.Holders, p.row.Holders) || seen.Committed != p.row.Committed || seen.Complete != p.row.Complete ||
			seen.Lost != p.row.Lost || seen.SurvivesSites != p.row.SurvivesSites {
			rows = append(rows, seen)
			p.row = &seen
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return r.cfg().Rows.Observe(ctx, rows)
}

// note remembers an own segment while holders of it are away.
func (r *Repairer) note(p *patient) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p.verdict.Away) == 0 {
		delete(r.absent, p.id)
	} else if len(r.absent) < maxSuspects {
		r.absent[p.id] = true
	}
}

// seen is the row of a segment as the members' answers make it. Shards whose
// holders are expected back count for completeness, those that can be read now
// for the sites that may vanish.
func (p *patient) seen(scene Scene) Row {
	v := p.verdict
	row := *p.row
	row.Holders = withEpochs(v.Holders(), p.hints)
	row.Complete = len(row.Holders) == p.redundancy.N
	row.Committed = len(row.Holders) >= p.redundancy.CommitAt()
	// Who has been away for too long may still return.
	row.Holders = storage.MergeHolders(row.Holders, slices.DeleteFunc(slices.Clone(p.evidence.Silent), func(h storage.Holder) bool {
		_, member := scene.Peers[h.Peer]
		return !member || !slices.Contains(v.Lost, h.Shard)
	}), p.redundancy.N)
	row.SurvivesSites = v.Survives(p.redundancy, scene.Peers)
	if v.Retrievable() {
		row.Lost = false
	}
	return row
}

// withEpochs gives holders the epochs by which they are known; one that was not
// known takes the place of who was.
func withEpochs(holders, hints []storage.Holder) []storage.Holder {
	out := slices.Clone(holders)
	for i, h := range out {
		for _, hint := range hints {
			switch {
			case hint.Shard != h.Shard:
			case hint.Peer == h.Peer:
				out[i].Epoch = max(out[i].Epoch, hint.Epoch)
			default:
				out[i].Epoch = max(out[i].Epoch, hint.Epoch+1)
			}
		}
	}
	return out
}
