package repair

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/shardstore"
)

// Two holders have the same shard after a partition, when one that was given up
// comes back, or when a straggler arrives late. The one that is not chosen lets
// its copy go, in two steps: the other one has to prove for a grace that it has the
// shard; then this peer's copy is set aside, so that it cannot be the source of a
// proof, and the other has to go on proving until the floor has passed and to
// deliver the shard at the end. At any sign that it does not, or that the segment
// lacks anything, the copy is taken back.
// docs/decisions.md says why that is safe.
const (
	// proofsToLetGo is how often the other holder proves in each step.
	proofsToLetGo = 3
	// trialPart of the grace lies between two proofs of the first step at least, a
	// grace between those of the second.
	trialPart = 3
	// maxTrials bounds the shards that are being let go.
	maxTrials = 8192
	// trialsInRound bounds the proofs asked for RoundSegments segments, trialsAtOnce
	// those at the same time, trialsTime how long they hold up a round.
	trialsInRound = 128
	trialsAtOnce  = 4
	trialsTime    = 10 * time.Minute
	// wideGraces pass at most until every member is asked about all segments again.
	wideGraces = 7
)

// trial is how far another holder is in one step of the above.
type trial struct {
	keeper grid.PeerID // the other holder
	since  time.Time   // its first proof in this step
	last   time.Time   // its newest
	proofs int
}

// chance says whether a copy of a shard may be let go.
type chance int

const (
	chanceNone chance = iota // it is needed
	chanceWait               // cannot be told while somebody is away
	chanceGood
)

// withoutMine judges whether a copy of a shard on this peer may be let go: without
// it, and without those of peers that leave, all n shards are there, no site has
// too many, and any one site may vanish. It is pure.
func withoutMine(e Evidence, shard int, scene Scene) chance {
	v := Judge(e.less(shard, func(peer grid.PeerID) bool { return peer == scene.Self || scene.Leaving[peer] }), scene)
	switch {
	case len(v.Lost) > 0 || v.Margin() <= 0:
		return chanceNone
	case len(v.Away) > 0 || v.Claimed:
		return chanceWait
	case len(v.Crowded) > 0 || v.Survives(e.Redundancy, scene.Peers) < 1:
		return chanceNone
	}
	return chanceGood
}

// chosen returns whose copy of a shard stays: the first in rendezvous order, if
// its site has room. All peers that see the same choose the same; the zero PeerID
// when nobody has it. It is pure.
func chosen(e Evidence, shard int, scene Scene) grid.PeerID {
	v := Judge(e.less(shard, func(peer grid.PeerID) bool { return scene.Leaving[peer] }), scene)
	if at := slices.IndexFunc(v.Good, func(h storage.Holder) bool { return h.Shard == shard }); at >= 0 {
		return v.Good[at].Peer
	}
	return grid.PeerID{}
}

// less is the evidence without what some peers say of one shard.
func (e Evidence) less(shard int, gone func(grid.PeerID) bool) Evidence {
	e.Copies = slices.Clone(e.Copies)
	e.Copies[shard] = slices.DeleteFunc(slices.Clone(e.Copies[shard]), func(c segments.Copy) bool { return gone(c.Peer) })
	return e
}

// takeBackAll takes back what was set aside and is needed. It is in the evidence
// and the verdicts of the patients afterwards.
func (r *Repairer) takeBackAll(ctx context.Context, patients []*patient, scene Scene) {
	for _, p := range patients {
		p.surplus = slices.DeleteFunc(p.surplus, func(s shardstore.Surplus) bool {
			id := storage.ShardID{Segment: p.id, Index: s.Index}
			keeper := r.memory.trial(id).keeper
			chance := withoutMine(p.evidence, s.Index, scene)
			if chance == chanceWait || chance == chanceGood && (keeper.IsZero() || slices.Contains(p.elsewhere(s.Index, scene), keeper)) {
				return false
			}
			r.takeBack(ctx, p, id, scene)
			return true
		})
	}
}

// letGoAll goes on with the surplus shards of some patients, a bounded number of
// them.
func (r *Repairer) letGoAll(ctx context.Context, patients []*patient, scene Scene) {
	ctx, cancel := context.WithTimeout(ctx, trialsTime)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(trialsAtOnce)
	var asked atomic.Int32
	for _, p := range patients {
		if p.job || asked.Load() >= trialsInRound || r.hasty.Load() > 0 || ctx.Err() != nil {
			continue
		}
		copies := slices.DeleteFunc(slices.Clone(p.held), func(shard int) bool {
			return !p.doubled(shard, scene.Self) && !r.memory.tries(storage.ShardID{Segment: p.id, Index: shard})
		})
		if len(copies)+len(p.surplus) == 0 {
			continue
		}
		group.Go(func() error {
			for _, shard := range copies {
				r.tryToLetGo(ctx, p, shard, scene, &asked)
			}
			for _, s := range p.surplus {
				r.watchSurplus(ctx, p, s, scene, &asked)
			}
			return nil
		})
	}
	_ = group.Wait() // each looks after itself
}

// letsGo reports whether shards of a segment are being let go.
func (r *Repairer) letsGo(p *patient) bool {
	return len(p.surplus) > 0 || slices.ContainsFunc(p.held, func(shard int) bool {
		return r.memory.tries(storage.ShardID{Segment: p.id, Index: shard})
	})
}

// widen decides, at the end of a sweep over all segments, whether the next one
// asks every member, which finds copies that nobody expects: the first one does,
// one after somebody came back who had been given up, and one now and then.
func (r *Repairer) widen(now time.Time) {
	if r.wide {
		r.widened = now
	}
	r.wide = r.regained || now.Sub(r.widened) >= wideGraces*r.cfg().Grace
	r.regained = false
}

// doubled reports whether somebody else says to have a shard too.
func (p *patient) doubled(shard int, self grid.PeerID) bool {
	return shard < len(p.evidence.Copies) && slices.ContainsFunc(p.evidence.Copies[shard], func(c segments.Copy) bool {
		return c.State == storage.ShardStored && c.Peer != self
	})
}

// tryToLetGo is the first step, for a shard that is stored here.
func (r *Repairer) tryToLetGo(ctx context.Context, p *patient, shard int, scene Scene, asked *atomic.Int32) {
	id := storage.ShardID{Segment: p.id, Index: shard}
	keeper, chance := chosen(p.evidence, shard, scene), withoutMine(p.evidence, shard, scene)
	t := r.memory.trial(id)
	switch {
	case chance == chanceWait:
		return
	case chance == chanceNone, keeper == scene.Self, keeper.IsZero():
		r.memory.endTrial(id)
		return
	case t.keeper != keeper:
		t = trial{keeper: keeper}
	}
	if !r.mayAsk(asked, id, t, r.cfg().Grace/trialPart, scene) {
		return
	}
	outcome := r.tryKeeper(ctx, t, id, false)
	switch {
	case outcome.faulty():
		r.memory.endTrial(id)
		return
	case outcome != OutcomeSuccess:
		return
	}
	if t = t.proved(scene.Now); r.enough(t, scene) {
		if err := r.cfg().Store.SetAside(ctx, id); err != nil {
			r.cfg().Logger.Warn("a surplus shard stays", "segment", p.id.Short(), "shard", shard, "err", err)
			return
		}
		r.cfg().Logger.Info("surplus shard set aside", "segment", p.id.Short(), "shard", shard, "kept_by", keeper)
		t = trial{keeper: keeper}
	}
	r.memory.setTrial(id, t)
}

// watchSurplus is the second step, for a shard that was set aside.
func (r *Repairer) watchSurplus(ctx context.Context, p *patient, s shardstore.Surplus, scene Scene, asked *atomic.Int32) {
	id := storage.ShardID{Segment: p.id, Index: s.Index}
	t := r.memory.trial(id)
	if t.keeper.IsZero() { // what was known of it is lost
		t.keeper = chosen(p.evidence, s.Index, scene)
	}
	if withoutMine(p.evidence, s.Index, scene) != chanceGood || !r.mayAsk(asked, id, t, r.cfg().Grace, scene) {
		return
	}
	next := t.proved(scene.Now)
	last := s.Left == 0 && r.enough(next, scene)
	outcome := r.tryKeeper(ctx, t, id, last)
	switch {
	case outcome.faulty():
		r.takeBack(ctx, p, id, scene)
		return
	case outcome != OutcomeSuccess:
		return
	case !last:
		r.memory.setTrial(id, next)
		return
	}
	freed, err := r.cfg().Store.Discard(ctx, id)
	if err != nil {
		r.cfg().Logger.Warn("a surplus shard stays", "segment", p.id.Short(), "shard", s.Index, "err", err)
		return
	}
	r.memory.endTrial(id)
	r.mu.Lock()
	r.total.Freed += freed
	r.mu.Unlock()
	r.cfg().Logger.Info("surplus shard freed", "segment", p.id.Short(), "shard", s.Index, "kept_by", t.keeper, "bytes", freed)
}

// takeBack makes a shard that was set aside a stored one again, and lets the
// patient know.
func (r *Repairer) takeBack(ctx context.Context, p *patient, id storage.ShardID, scene Scene) {
	if err := r.cfg().Store.TakeBack(ctx, id); err != nil {
		r.cfg().Logger.Warn("a shard that was set aside cannot be taken back", "segment", p.id.Short(), "shard", id.Index, "err", err)
		return
	}
	r.memory.endTrial(id)
	if err := r.cfg().Store.Verify(ctx, id); err != nil {
		return // the store has said so
	}
	r.cfg().Logger.Info("shard taken back", "segment", p.id.Short(), "shard", id.Index)
	p.held = append(p.held, id.Index)
	p.evidence.Copies = slices.Clone(p.evidence.Copies)
	p.evidence.Copies[id.Index] = append(slices.Clone(p.evidence.Copies[id.Index]), segments.Copy{Peer: r.cfg().Self, State: storage.ShardStored})
	claimed := p.verdict.Claimed
	p.verdict = Judge(p.evidence, scene)
	p.verdict.Claimed = p.verdict.Claimed || claimed
}

// mayAsk reports whether the next proof of a trial is due and may be asked for.
func (r *Repairer) mayAsk(asked *atomic.Int32, id storage.ShardID, t trial, every time.Duration, scene Scene) bool {
	due := t.proofs == 0 || scene.Now.Sub(t.last) >= every
	return due && r.memory.roomFor(id, scene.Now) && asked.Add(1) <= trialsInRound
}

// enough reports whether a step of a trial may end.
func (r *Repairer) enough(t trial, scene Scene) bool {
	return t.proofs >= proofsToLetGo && scene.Now.Sub(t.since) >= r.cfg().Grace
}

// proved is t with one proof more.
func (t trial) proved(now time.Time) trial {
	if t.proofs == 0 {
		t.since = now
	}
	t.last, t.proofs = now, t.proofs+1
	return t
}

// tryKeeper challenges the keeper of a trial. What it proves is not counted in
// its standing, where successes push faults out; a fault is.
func (r *Repairer) tryKeeper(ctx context.Context, t trial, id storage.ShardID, read bool) Outcome {
	outcome, admitted := r.ask(ctx, t.keeper, id, read)
	if ctx.Err() != nil {
		return ""
	}
	if outcome.faulty() {
		r.noteChallenge(t.keeper, id, read, outcome, admitted)
	}
	return outcome
}
