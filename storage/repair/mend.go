package repair

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"gotong/storage"
	"gotong/storage/segments"
)

const (
	// freshFor is how old answers may be on which a rebuild relies; a round may
	// take hours, and another peer may have done it meanwhile.
	freshFor = 10 * time.Second
	// A segment that could not be repaired is tried again after an interval,
	// then twice as long each time, at most maxBackoff intervals.
	maxBackoff = 64
)

// mendAll rebuilds, the worst first, some at once. A failure of one says nothing
// about the others, so only the end of ctx stops it.
func (r *Repairer) mendAll(ctx context.Context, due []*patient, scene Scene, sum *Summary) error {
	var group errgroup.Group
	group.SetLimit(r.cfg().Parallel)
	for _, p := range due {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if ctx.Err() != nil || r.hasty.Load() > 0 {
				return nil
			}
			rebuilt, bytes, err := r.mend(ctx, p, scene)
			r.mu.Lock()
			defer r.mu.Unlock()
			sum.Rebuilt += rebuilt
			sum.Bytes += bytes
			r.total.Rebuilt += rebuilt
			r.total.Bytes += bytes
			if rebuilt > 0 {
				r.total.Last = time.Now()
			}
			if err != nil {
				sum.Problem = err.Error()
			}
			return nil
		})
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// mend rebuilds what one segment lacks and notes how it went.
func (r *Repairer) mend(ctx context.Context, p *patient, scene Scene) (rebuilt int, bytes int64, err error) {
	if time.Since(p.looked) > freshFor {
		again := r.scene(time.Now())
		left, err := r.examine(ctx, []*patient{p}, again)
		if err != nil || len(left) == 0 || len(p.verdict.Lost) == 0 {
			return 0, 0, err
		}
		scene = again
	}
	result, err := r.rebuild(ctx, p)
	if ctx.Err() != nil {
		return 0, 0, nil
	}
	r.blame(p, result.Causes, err)
	rebuilt = len(result.Placed)
	r.noted(p, result, err)
	if rebuilt > 0 {
		r.cfg().Logger.Info("repaired", "segment", p.id.Short(), "shards", rebuilt, "still_missing", len(result.Missing), "bytes", result.Bytes)
	} else {
		r.cfg().Logger.Info("not repaired yet", "segment", p.id.Short(), "lost", len(p.verdict.Lost), "readable", len(p.verdict.Good),
			"problem", result.Problem, "err", err)
	}
	return rebuilt, result.Bytes, errors.Join(err, r.tellVault(ctx, p, result, err, scene))
}

func (r *Repairer) rebuild(ctx context.Context, p *patient) (segments.Rebuilt, error) {
	v := p.verdict
	sources := append(append([]storage.Holder(nil), v.Good...), v.Trash...)
	header, err := r.cfg().Segments.Header(ctx, p.id, sources)
	if err != nil {
		return segments.Rebuilt{}, err
	}
	moved := int64(header.Redundancy.K+len(v.Lost)) * int64(header.ShardBytes)
	if err := r.budget.wait(ctx, moved); err != nil {
		return segments.Rebuilt{}, err
	}
	return r.cfg().Segments.Rebuild(ctx, segments.RebuildJob{
		Header: header, Sources: sources, Missing: v.Lost, Away: withEpochs(v.Away, p.hints), Back: v.Back, Avoid: v.Avoid, Wait: r.cfg().Grace,
	})
}

// blame notes who did not give what it said to have. A peer that took no new
// shard is not to blame.
func (r *Repairer) blame(p *patient, causes []segments.PeerError, failed error) {
	var few *segments.TooFewError
	if errors.As(failed, &few) {
		causes = few.Causes
	}
	for _, cause := range causes {
		for _, h := range p.verdict.Good {
			if h.Peer == cause.Peer && outcomeOf(cause.Err).faulty() {
				r.Doubt(cause.Peer, storage.ShardID{Segment: p.id, Index: h.Shard})
			}
		}
	}
}

// noted keeps or closes the note of a damaged segment.
func (r *Repairer) noted(p *patient, result segments.Rebuilt, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && len(result.Missing) == 0 {
		delete(r.open, p.id)
		return
	}
	d := r.open[p.id]
	if d == nil {
		return
	}
	wait := r.cfg().Interval << min(d.tries, 6)
	d.tries++
	d.next = time.Now().Add(min(wait, maxBackoff*r.cfg().Interval) - r.cfg().Interval/2)
	switch {
	case err != nil:
		d.why = err.Error()
	case result.Problem != "":
		d.why = result.Problem
	default:
		d.why = fmt.Sprintf("no place for %d shards", len(result.Missing))
	}
}

// tellVault writes back what became of an own segment. One that nobody can give
// back, and that is not waiting here either, is lost: the next backup stores
// that data again.
func (r *Repairer) tellVault(ctx context.Context, p *patient, result segments.Rebuilt, failed error, scene Scene) error {
	if p.row == nil {
		return nil
	}
	row := p.seen(scene)
	switch {
	case len(result.Placed) > 0:
		row = r.afterRebuild(row, p, result)
	case !row.Lost && p.verdict.gone(p.evidence, scene) && (failed == nil || errors.Is(failed, storage.ErrTooFewShards)):
		row.Lost = true
		r.cfg().Logger.Warn("a segment is lost: the next backup stores its data again", "segment", p.id.Short(),
			"readable", len(p.verdict.Good), "needed", p.redundancy.K)
	default:
		return nil
	}
	return r.cfg().Rows.Observe(ctx, []Row{row})
}

func (r *Repairer) afterRebuild(row Row, p *patient, result segments.Rebuilt) Row {
	row.Holders = storage.MergeHolders(result.Holders, withEpochs(p.verdict.Away, p.hints), p.redundancy.N)
	row.Complete = len(row.Holders) == p.redundancy.N
	row.Committed = len(row.Holders) >= p.redundancy.CommitAt()
	row.Lost, row.SurvivesSites = false, result.SurvivesSites
	return row
}

// gonePart is how many times the grace a holder may be away before data that
// only it could give back is stored again. The old shards are still used when
// it returns.
const gonePart = 7

// gone reports whether so many shards are gone that the segment will not come
// back: their holders said so, are no members any more, or have been away for
// gonePart times the grace.
func (v Verdict) gone(e Evidence, scene Scene) bool {
	may := map[int]bool{}
	for _, h := range e.Silent {
		if peer, member := scene.Peers[h.Peer]; member && lostAt(peer, scene, gonePart*scene.Grace).After(scene.Now) {
			may[h.Shard] = true
		}
	}
	for _, holders := range [][]storage.Holder{v.Good, v.Away, v.Trash} {
		for _, h := range holders {
			may[h.Shard] = true
		}
	}
	return len(may) < v.k
}
