package repair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/shardstore"
)

const (
	// handOverAtOnce is how many shards are handed over at the same time.
	handOverAtOnce = 4
	// handOverPortion is about how many segments the members are asked at once.
	handOverPortion = 256
)

// errNoPlace says that no peer takes a shard.
var errNoPlace = errors.New("no other peer has a place for it")

// moveAll hands shards over that are too many on this peer's site, where there
// is a better place.
func (r *Repairer) moveAll(ctx context.Context, moving []*patient, scene Scene, sum *Summary) error {
	for _, p := range moving {
		for _, h := range p.verdict.Crowded {
			if h.Peer != r.cfg().Self || !slices.Contains(p.held, h.Shard) {
				continue
			}
			bytes, err := r.handOver(ctx, p, h.Shard, scene, true)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				continue // no better place; the next round looks again
			}
			r.mu.Lock()
			sum.Moved++
			sum.Bytes += bytes
			r.mu.Unlock()
		}
	}
	return nil
}

// handOver gives a shard of this peer to another one and drops it here once the
// other has proved that it has it. With better only a place counts where the
// sites are less crowded than now.
func (r *Repairer) handOver(ctx context.Context, p *patient, shard int, scene Scene, better bool) (bytes int64, err error) {
	id := storage.ShardID{Segment: p.id, Index: shard}
	header, hints, err := r.cfg().Store.Header(ctx, p.id)
	if err != nil {
		return 0, err
	}
	if !better {
		for _, peer := range p.elsewhere(shard, scene) {
			if r.proves(ctx, peer, id, header) {
				return 0, r.cfg().Store.DeleteShard(ctx, id)
			}
		}
	}
	if err := r.budget.wait(ctx, int64(header.ShardBytes)); err != nil {
		return 0, err
	}
	avoid := maps.Clone(p.verdict.Avoid)
	avoid[r.cfg().Self] = true
	rebuilt, err := r.cfg().Segments.Rebuild(ctx, segments.RebuildJob{
		Header: header, Sources: withEpochs(p.sources(shard, r.cfg().Self), hints), Missing: []int{shard},
		Away: withEpochs(p.verdict.Away, hints), Avoid: avoid, Move: better,
	})
	if err != nil {
		return 0, err
	}
	at := slices.IndexFunc(rebuilt.Holders, func(h storage.Holder) bool { return h.Shard == shard && h.Peer != r.cfg().Self })
	if at < 0 || !slices.Contains(rebuilt.Placed, shard) {
		return 0, errNoPlace
	}
	to := rebuilt.Holders[at].Peer
	if !r.proves(ctx, to, id, header) {
		return 0, fmt.Errorf("the new holder does not prove that it has the shard: %w", storage.ErrCorrupt)
	}
	r.mu.Lock()
	r.total.Moved++
	r.total.Bytes += rebuilt.Bytes
	r.total.Last = time.Now()
	r.mu.Unlock()
	r.cfg().Logger.Info("shard handed over", "segment", p.id.Short(), "shard", shard, "to", to)
	return rebuilt.Bytes, r.cfg().Store.DeleteShard(ctx, id)
}

// sources returns who has which shard, this peer first for the one that it
// hands over.
func (p *patient) sources(shard int, self grid.PeerID) []storage.Holder {
	out := []storage.Holder{{Shard: shard, Peer: self}}
	for _, h := range p.verdict.Good {
		if h.Shard != shard {
			out = append(out, h)
		}
	}
	return out
}

// elsewhere returns other trusted members that have the shard too and stay.
func (p *patient) elsewhere(shard int, scene Scene) []grid.PeerID {
	var out []grid.PeerID
	for _, c := range p.evidence.Copies[shard] {
		_, member := scene.Peers[c.Peer]
		believed := scene.Distrusted == nil || !scene.Distrusted(c.Peer, storage.ShardID{Segment: p.id, Index: shard})
		if c.State == storage.ShardStored && c.Peer != scene.Self && member && believed && !scene.Leaving[c.Peer] {
			out = append(out, c.Peer)
		}
	}
	return out
}

// proves reports whether a peer proves that it has a shard.
func (r *Repairer) proves(ctx context.Context, peer grid.PeerID, id storage.ShardID, header storage.SignedHeader) bool {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	groups := randomGroups(storage.ProofGroups(header.ShardBytes), r.cfg().Groups)
	return r.cfg().Segments.Audit(ctx, peer, id, header.Roots[id.Index], header.ShardBytes, groups) == nil
}

// DrainProgress is how far a handover is.
type DrainProgress struct {
	Shards    int   // handed over
	Bytes     int64 // of them
	Left      int   // shards still here
	LeftBytes int64 // on disk
	Stuck     int   // of those left: nobody takes them now
	Why       string
}

// Drain hands over all shards that this peer keeps, each dropped here only when
// another has proved that it has it. It returns when nothing is left, or when a
// whole pass moved nothing; Left says which. Interrupted, it has done a part.
// Calls of progress, which may be nil, do not overlap.
func (r *Repairer) Drain(ctx context.Context, progress func(DrainProgress)) (DrainProgress, error) {
	r.hasty.Add(1)
	release, err := r.alone(ctx)
	r.hasty.Add(-1)
	if err != nil {
		return DrainProgress{}, err
	}
	defer release()
	d := r.newDrain(func(shardstore.Stats) bool { return true }, progress)
	return d.run(ctx)
}

// shed hands shards over while this peer keeps more than it pledges.
func (r *Repairer) shed(ctx context.Context) error {
	over := func(s shardstore.Stats) bool { return s.CapacityBytes > 0 && s.Bytes > s.CapacityBytes }
	if !over(r.cfg().Store.Stats()) {
		r.setShedding(DrainProgress{})
		return nil
	}
	d := r.newDrain(over, r.setShedding)
	d.patient = true
	_, err := d.run(ctx)
	return err
}

func (r *Repairer) setShedding(p DrainProgress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shedding = p
}

// Shedding returns how far this peer is with giving less than it holds; Left is
// 0 when it is not at it.
func (r *Repairer) Shedding() DrainProgress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shedding
}

// run hands shards over while more says so of what is still held.
func (d *drain) run(ctx context.Context) (DrainProgress, error) {
	for {
		before := d.done.Shards
		if err := d.pass(ctx); err != nil {
			return d.state(), err
		}
		state := d.state()
		if state.Left == 0 || d.done.Shards == before || !d.goOn() {
			return state, nil
		}
	}
}

// drain is one handover of many shards.
type drain struct {
	r        *Repairer
	more     func(shardstore.Stats) bool
	progress func(DrainProgress) // may be nil
	patient  bool                // there will be another time

	telling chan struct{} // held during a call of progress, which may wait

	mu   sync.Mutex
	done DrainProgress
}

func (r *Repairer) newDrain(more func(shardstore.Stats) bool, progress func(DrainProgress)) *drain {
	return &drain{r: r, more: more, progress: progress, telling: make(chan struct{}, 1)}
}

func (d *drain) goOn() bool {
	return d.more(d.r.cfg().Store.Stats())
}

// state is the progress so far.
func (d *drain) state() DrainProgress {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// pass goes once through all that is held.
func (d *drain) pass(ctx context.Context) error {
	var ids []storage.SegmentID
	left := 0
	for held, err := range d.r.cfg().Store.Segments(ctx) {
		if err != nil {
			return err
		}
		ids, left = append(ids, held.ID), left+len(held.Shards)
	}
	d.mu.Lock()
	d.done.Left, d.done.Stuck, d.done.Why = left, 0, ""
	d.done.LeftBytes = d.r.cfg().Store.Stats().Bytes
	d.mu.Unlock()
	before := d.state().Shards
	for portion := range slices.Chunk(ids, handOverPortion) {
		if err := d.portion(ctx, portion); err != nil || !d.goOn() {
			return err
		}
		if d.patient && d.state().Shards == before {
			return nil // the next round tries others
		}
	}
	return nil
}

func (d *drain) portion(ctx context.Context, ids []storage.SegmentID) error {
	scene := d.r.scene(time.Now())
	patients, err := d.r.admit(ctx, ids)
	if err != nil {
		return err
	}
	if patients, err = d.r.examine(ctx, patients, scene); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(handOverAtOnce)
	for _, p := range patients {
		for _, shard := range p.held {
			group.Go(func() error {
				if !d.goOn() || ctx.Err() != nil {
					return nil
				}
				bytes, err := d.r.handOver(ctx, p, shard, scene, false)
				d.note(bytes, err)
				return nil
			})
		}
	}
	_ = group.Wait() // each was noted
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// note counts one shard and reports.
func (d *drain) note(bytes int64, err error) {
	used := d.r.cfg().Store.Stats().Bytes
	d.mu.Lock()
	d.done.LeftBytes = used
	if err == nil {
		d.done.Shards++
		d.done.Bytes += bytes
		d.done.Left--
	} else {
		d.done.Stuck++
		d.done.Why = err.Error()
	}
	d.mu.Unlock()
	if d.progress != nil {
		d.telling <- struct{}{}
		defer func() { <-d.telling }()
		d.progress(d.state())
	}
}
