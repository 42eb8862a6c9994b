package repair

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/shardstore"
)

// patient is one segment that a round looks at.
type patient struct {
	id         storage.SegmentID
	redundancy storage.Redundancy
	owner      grid.OwnerID
	vault      storage.VaultID // zero: not known
	held       []int           // shards of it on this peer
	surplus    []shardstore.Surplus
	job        bool // of a job: it expires, and is never deleted
	row        *Row // of the own vault
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
	returns := r.returned()
	scene := r.scene(time.Now())
	sum := Summary{At: scene.Now}
	errs := []error{r.tidy(ctx, scene)}
	r.fetchDeletions(ctx, scene)
	portions, wraps, err := r.choose(ctx, scene)
	errs = append(errs, err)
	for _, ids := range portions {
		if r.hasty.Load() > 0 {
			break
		}
		errs = append(errs, r.treat(ctx, ids, scene, &sum))
	}
	if wraps {
		r.claims.turn()
		r.widen(scene.Now)
	}
	if r.hasty.Load() == 0 {
		errs = append(errs, r.shed(ctx))
	}
	r.mu.Lock()
	r.total.Rounds++
	r.mu.Unlock()
	if r.returned() != returns { // too late for what this round saw
		r.again()
	}
	return sum, errors.Join(errs...)
}

// choose returns the segments to look at: those in doubt or damaged first, then
// the next of all, in portions of RoundSegments; and whether they reach the end
// of all.
func (r *Repairer) choose(ctx context.Context, scene Scene) (portions [][]storage.SegmentID, wraps bool, err error) {
	var all, first []storage.SegmentID
	for held, err := range r.cfg().Store.Segments(ctx) {
		if err != nil {
			return nil, false, err
		}
		all = append(all, held.ID)
	}
	if r.cfg().Rows != nil {
		for row, err := range r.cfg().Rows.Segments(ctx) {
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
	limit := RoundSegments * batches(len(all), r.cfg().Interval, r.cfg().Grace, r.hurry(scene))
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
	for _, p := range r.cfg().Grid.Removed() {
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
	for id := range r.gone {
		r.regained = r.regained || !gone[id]
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
	r.takeBackAll(ctx, patients, scene)
	due, moving := r.triage(patients, scene, sum)
	err = errors.Join(r.mendAll(ctx, due, scene, sum), r.moveAll(ctx, moving, scene, sum))
	if len(due) == 0 { // what is lost comes first
		r.letGoAll(ctx, patients, scene)
	}
	return errors.Join(err, ctx.Err())
}

// admit collects what this peer knows of segments. Those that are neither held
// nor needed any more are left out.
func (r *Repairer) admit(ctx context.Context, ids []storage.SegmentID) ([]*patient, error) {
	wanted := make(map[storage.SegmentID]*patient, len(ids))
	for _, id := range ids {
		wanted[id] = &patient{id: id}
	}
	for held, err := range r.cfg().Store.Segments(ctx) {
		if err != nil {
			return nil, err
		}
		if p := wanted[held.ID]; p != nil {
			p.held, p.surplus, p.vault, p.owner, p.job = held.Shards, held.Surplus, held.Vault, held.Owner, held.Job
		}
	}
	if r.cfg().Rows != nil {
		for row, err := range r.cfg().Rows.Segments(ctx) {
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
		if p := wanted[id]; len(p.held)+len(p.surplus) > 0 || p.row != nil {
			if len(p.held)+len(p.surplus) > 0 {
				header, holders, err := r.cfg().Store.Header(ctx, id)
				if err != nil && p.row == nil {
					continue // gone meanwhile
				}
				if err == nil {
					p.redundancy, p.hints = header.Redundancy, storage.MergeHolders(holders, p.hints, header.Redundancy.N)
				}
			}
			if p.redundancy.IsZero() {
				header, err := r.cfg().Segments.Header(ctx, id, p.hints)
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

// triage sorts patients: whom to repair now, the worst first, and what to move.
func (r *Repairer) triage(patients []*patient, scene Scene, sum *Summary) (due, moving []*patient) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range patients {
		v := p.verdict
		if len(p.held) == 0 && p.row == nil {
			continue // all that is here is set aside
		}
		sum.Segments++
		if len(v.Lost) == 0 {
			sum.Healthy++
			delete(r.open, p.id)
			if slices.ContainsFunc(v.Crowded, func(h storage.Holder) bool { return h.Peer == r.cfg().Self }) {
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
		d.waits = scene.Now.Before(ActsAt(d.since, turn, r.cfg().Interval))
		switch {
		case d.waits:
			sum.Waiting++
		case scene.Now.Before(d.next):
		case p.row == nil && (!(p.job || r.synced[p.vault]) || !v.Retrievable()):
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
