package repair

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
)

// patient is one segment that a round looks at.
type patient struct {
	id         storage.SegmentID
	redundancy storage.Redundancy
	owner      grid.OwnerID
	vault      storage.VaultID // zero: not known
	held       []int           // shards of it on this peer
	row        *Row            // of the own vault
	hints      []storage.Holder
	evidence   Evidence
	verdict    Verdict
	looked     time.Time
}

// Round looks at the next slice of the segments, and repairs what is this
// peer's turn. Only one runs at a time.
func (r *Repairer) Round(ctx context.Context) (Summary, error) {
	release, err := r.alone(ctx)
	if err != nil {
		return Summary{}, err
	}
	defer release()
	scene := r.scene(time.Now())
	sum := Summary{At: scene.Now}
	errs := []error{r.tidy(ctx, scene)}
	r.fetchDeletions(ctx, scene)
	slices, wraps, err := r.choose(ctx, scene)
	errs = append(errs, err)
	for _, ids := range slices {
		if r.hasty.Load() > 0 {
			break
		}
		errs = append(errs, r.treat(ctx, ids, scene, &sum))
	}
	if wraps {
		r.claims.turn()
	}
	if r.hasty.Load() == 0 {
		errs = append(errs, r.shed(ctx))
	}
	r.mu.Lock()
	r.total.Rounds++
	r.mu.Unlock()
	return sum, errors.Join(errs...)
}

// choose returns the segments to look at: those in doubt or damaged first, then
// the next of all, in portions of RoundSegments; and whether they reach the end
// of all.
func (r *Repairer) choose(ctx context.Context, scene Scene) (portions [][]storage.SegmentID, wraps bool, err error) {
	var all, first []storage.SegmentID
	for held, err := range r.cfg.Store.Segments(ctx) {
		if err != nil {
			return nil, false, err
		}
		all = append(all, held.ID)
	}
	if r.cfg.Rows != nil {
		for row, err := range r.cfg.Rows.Segments(ctx) {
			if err != nil {
				return nil, false, err
			}
			all = append(all, row.ID)
			if !row.Complete && len(first) < RoundSegments {
				first = append(first, row.ID)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.suspects {
		first = append(first, id)
	}
	for id := range r.open {
		if len(first) < 2*RoundSegments {
			first = append(first, id)
		}
	}
	clear(r.suspects)
	limit := RoundSegments * batches(len(all), r.cfg.Interval, r.cfg.Grace, r.hurry(scene))
	next := slice(all, r.cursor, limit)
	wraps = len(next) < limit || len(next) == 0 || compareIDs(next[len(next)-1], r.cursor) <= 0
	if len(next) > 0 {
		r.cursor = next[len(next)-1]
	}
	slices.SortFunc(first, compareIDs)
	first = slices.Compact(first)
	next = slices.DeleteFunc(next, func(id storage.SegmentID) bool {
		_, found := slices.BinarySearchFunc(first, id, compareIDs)
		return found
	})
	return slices.Collect(slices.Chunk(append(first, next...), RoundSegments)), wraps, nil
}

// hurry reports whether a member is gone, for good or past the grace, that the
// last round still counted on: then all segments are looked at now.
func (r *Repairer) hurry(scene Scene) bool {
	gone := map[grid.PeerID]bool{}
	for _, p := range r.cfg.Grid.Removed() {
		gone[p.ID] = true
	}
	for id, p := range scene.Peers {
		if p.State != grid.StateAlive && !lostAt(p, scene, scene.Grace).After(scene.Now) {
			gone[id] = true
		}
	}
	more := false
	for id := range gone {
		more = more || !r.gone[id]
	}
	first := r.total.Rounds == 0
	r.gone = gone
	return more && !first
}

// treat looks at a portion of segments and does what is to be done.
func (r *Repairer) treat(ctx context.Context, ids []storage.SegmentID, scene Scene, sum *Summary) error {
	patients, err := r.admit(ctx, ids)
	if err != nil {
		return err
	}
	if patients, err = r.examine(ctx, patients, scene); err != nil {
		return err
	}
	if err := r.observe(ctx, patients, scene); err != nil {
		return err
	}
	due, moving := r.triage(patients, scene, sum)
	return errors.Join(r.mendAll(ctx, due, scene, sum), r.moveAll(ctx, moving, scene, sum))
}

// admit collects what this peer knows of segments. Those that are neither held
// nor needed any more are left out.
func (r *Repairer) admit(ctx context.Context, ids []storage.SegmentID) ([]*patient, error) {
	wanted := make(map[storage.SegmentID]*patient, len(ids))
	for _, id := range ids {
		wanted[id] = &patient{id: id}
	}
	for held, err := range r.cfg.Store.Segments(ctx) {
		if err != nil {
			return nil, err
		}
		if p := wanted[held.ID]; p != nil {
			p.held, p.vault, p.owner = held.Shards, held.Vault, held.Owner
		}
	}
	if r.cfg.Rows != nil {
		for row, err := range r.cfg.Rows.Segments(ctx) {
			if err != nil {
				return nil, err
			}
			if p := wanted[row.ID]; p != nil {
				p.row, p.redundancy, p.hints = &row, row.Redundancy, row.Holders
			}
		}
	}
	out := make([]*patient, 0, len(ids))
	for _, id := range ids {
		if p := wanted[id]; p.held != nil || p.row != nil {
			if len(p.held) > 0 {
				header, holders, err := r.cfg.Store.Header(ctx, id)
				if err != nil && p.row == nil {
					continue // gone meanwhile
				}
				if err == nil {
					p.redundancy, p.hints = header.Redundancy, storage.MergeHolders(holders, p.hints, header.Redundancy.N)
				}
			}
			if p.redundancy.IsZero() {
				header, err := r.cfg.Segments.Header(ctx, id, p.hints)
				if err != nil {
					continue // nobody who knows it is here
				}
				p.redundancy = header.Redundancy
			}
			out = append(out, p)
		} else {
			r.close(id)
		}
	}
	return out, nil
}

// close forgets a segment that is healthy, or none of this peer's business.
func (r *Repairer) close(id storage.SegmentID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, id)
}

// examine asks the members and judges. Segments that turn out to be deleted are
// left out.
func (r *Repairer) examine(ctx context.Context, patients []*patient, scene Scene) ([]*patient, error) {
	if len(patients) == 0 {
		return nil, nil
	}
	asks := make([]segments.Ask, len(patients))
	for i, p := range patients {
		asks[i] = segments.Ask{ID: p.id, N: p.redundancy.N, Holders: p.hints}
	}
	surveys, err := r.cfg.Segments.Survey(ctx, asks)
	if err != nil {
		return nil, fmt.Errorf("survey: %w", err)
	}
	if len(surveys) != len(patients) {
		return nil, fmt.Errorf("survey: %d answers to %d questions", len(surveys), len(patients))
	}
	now := time.Now()
	self := scene.Peers[r.cfg.Self]
	for i, p := range patients {
		if p.owner == (grid.OwnerID{}) {
			p.owner = self.Owner
		}
		s := surveys[i]
		p.hints = s.Holders
		p.evidence = Evidence{ID: p.id, Redundancy: p.redundancy, Owner: p.owner, Copies: s.Shards, Refused: s.Refused, Silent: s.Silent}
		p.verdict, p.looked = Judge(p.evidence, scene), now
		p.verdict.Claimed = p.verdict.Claimed || s.Deleted
		r.claims.offer(p.evidence, r.cfg.Self)
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
		if !slices.Equal(seen.Holders, p.row.Holders) || seen.Committed != p.row.Committed || seen.Complete != p.row.Complete ||
			seen.Lost != p.row.Lost || seen.SurvivesSites != p.row.SurvivesSites {
			rows = append(rows, seen)
			p.row = &seen
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return r.cfg.Rows.Observe(ctx, rows)
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

// triage sorts patients: whom to repair now, the worst first, and what to move.
func (r *Repairer) triage(patients []*patient, scene Scene, sum *Summary) (due, moving []*patient) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range patients {
		v := p.verdict
		sum.Segments++
		if len(v.Lost) == 0 {
			sum.Healthy++
			delete(r.open, p.id)
			if slices.ContainsFunc(v.Crowded, func(h storage.Holder) bool { return h.Peer == r.cfg.Self }) {
				moving = append(moving, p)
			}
			continue
		}
		sum.Degraded++
		if v.Margin() <= 0 {
			sum.Critical++
		}
		if !v.Retrievable() {
			sum.Lost++
		}
		d := r.damaged(p, scene.Now)
		turn := Turn(p.evidence, v, scene)
		d.waits = scene.Now.Before(ActsAt(d.since, turn, r.cfg.Interval))
		switch {
		case d.waits:
			sum.Waiting++
		case scene.Now.Before(d.next):
		case p.row == nil && (!r.synced[p.vault] || !v.Retrievable()):
		default:
			due = append(due, p)
		}
	}
	slices.SortStableFunc(due, func(a, b *patient) int { return cmp.Compare(a.verdict.Margin(), b.verdict.Margin()) })
	return due, moving
}

// damaged returns the note of a damaged segment. The caller holds r.mu.
func (r *Repairer) damaged(p *patient, now time.Time) *damage {
	d := r.open[p.id]
	if d == nil {
		d = &damage{since: now}
		if len(r.open) < maxOpen {
			r.open[p.id] = d
		}
	}
	d.margin, d.lost = p.verdict.Margin(), len(p.verdict.Lost)
	return d
}

// tidy frees what may be freed and forgets who is no member.
func (r *Repairer) tidy(ctx context.Context, scene Scene) error {
	r.memory.keep(func(peer grid.PeerID) bool { _, member := scene.Peers[peer]; return member })
	freed, err := r.cfg.Store.EmptyTrash(ctx, false)
	errs := []error{err}
	left, err := r.cfg.Store.FreeGivenUp(ctx)
	freed += left
	errs = append(errs, err)
	removed, err := r.cfg.Store.NoteRemoved(removedOwners(r.cfg.Grid.Removed(), scene))
	errs = append(errs, err)
	for owner, since := range removed {
		if since < r.cfg.Retention {
			continue
		}
		dropped, err := r.cfg.Store.DropOwner(ctx, owner)
		if n := dropped.Total(); n > 0 {
			r.cfg.Logger.Info("what was kept for an owner who was removed is freed", "owner", owner, "bytes", n)
			freed += n
		}
		errs = append(errs, err)
	}
	r.mu.Lock()
	r.total.Freed += freed
	r.mu.Unlock()
	return errors.Join(errs...)
}

// removedOwners returns the owners of whom a peer was removed and none is a
// member.
func removedOwners(removed []grid.Peer, scene Scene) []grid.OwnerID {
	owners := map[grid.OwnerID]bool{}
	for _, p := range removed {
		if p.Owner != (grid.OwnerID{}) {
			owners[p.Owner] = true
		}
	}
	for _, p := range scene.Peers {
		delete(owners, p.Owner)
	}
	return slices.SortedFunc(maps.Keys(owners), func(a, b grid.OwnerID) int { return cmp.Compare(a.String(), b.String()) })
}
