package segments

import (
	"context"
	"math"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
)

// Bounds of an upload.
const (
	attemptsPerShard = 3 // on average, replacements and hedges included
	checksMax        = 3 // shards read back until one proves right
)

// upload is one segment on its way to its holders. One goroutine owns it.
type upload struct {
	s       *Segments
	segment *encoded
	r       storage.Redundancy
	choice  *choice
	shards  []upShard
	results chan outcome
	left    int  // attempts that may still be started
	urge    need // of shards beyond the commit rule
	patient bool // the commit rule ends nothing: others do not wait for this upload
	pace    pace
	enough  time.Time // when the commit rule first held
	usable  time.Time // when k shards were durable first
	check   check
	causes  causes
}

// upShard is what is known of one shard.
type upShard struct {
	holder  grid.PeerID      // zero: not durable anywhere
	found   bool             // it was there before, and nothing is to be sent
	away    bool             // and its holder is away
	moves   uint32           // the epoch: how often it was given to another peer
	told    []storage.Holder // the list that its holder was given with it
	running []*attempt
}

// moved raises the epoch. Others may have named any, so it has an end.
func (s *upShard) moved() {
	if s.moves < math.MaxUint32 {
		s.moves++
	}
}

func newUpload(s *Segments, segment *encoded, plan *placement.Plan, candidates []placement.Candidate) *upload {
	u := newTransfer(s, segment, candidates)
	u.choice.planned = plan.Peers
	return u
}

// newTransfer returns an upload of which nothing was planned.
func newTransfer(s *Segments, segment *encoded, candidates []placement.Candidate) *upload {
	r := segment.header.Redundancy
	n := r.N
	return &upload{
		s: s, segment: segment, r: r,
		choice:  newChoice(s, segment.header, candidates),
		shards:  make([]upShard, n),
		results: make(chan outcome, n*attemptsPerShard+checksMax),
		left:    n * attemptsPerShard,
		urge:    needSpread,
		pace:    s.newPace(quietPut),
	}
}

// run sends the shards and returns when nothing more is to be had in time.
func (u *upload) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	alarm := newAlarm()
	defer alarm.at(time.Time{})
	u.startPlanned(ctx)
	u.count()
	for {
		u.replace(ctx)
		u.startCheck(ctx)
		if u.settled() {
			return nil
		}
		select {
		case o := <-u.results:
			u.take(o)
		case now := <-alarm.at(u.nextEvent()):
			u.onTime(ctx, now)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startPlanned starts with the holders of the plan, except those that are away
// and those that failed a moment ago: they come last.
func (u *upload) startPlanned(ctx context.Context) {
	planned := u.choice.planned
	for shard, peer := range planned {
		err := u.s.peers.skip(peer, toPut)
		if k, ok := u.choice.candidate(peer); ok && k.Away {
			err = errAway
		}
		if err != nil {
			u.causes.add(peer, err)
			planned[shard] = grid.PeerID{} // nobody is told that it has the shard
		}
	}
	for shard, peer := range planned {
		if !peer.IsZero() {
			u.start(ctx, shard, peer)
		}
	}
}

// start sends a shard to a peer.
func (u *upload) start(ctx context.Context, shard int, peer grid.PeerID) {
	a := u.s.newAttempt(ctx, peer, shard, u.segment.header.ShardBytes)
	u.left--
	u.choice.use(peer)
	u.shards[shard].running = append(u.shards[shard].running, a)
	holders := u.holders(shard, peer)
	a.told = holders
	u.segment.lease.hold()
	u.s.running.Go(func() {
		defer u.segment.lease.release()
		err := u.s.send(a, u.segment, holders)
		u.results <- outcome{a, err, time.Since(a.started)}
	})
}

// holders returns the holder list to be kept beside a shard: who has or gets
// which shard, as far as known now.
func (u *upload) holders(shard int, peer grid.PeerID) []storage.Holder {
	list := make([]storage.Holder, 0, u.r.N)
	for i := range u.shards {
		h := storage.Holder{Shard: i, Peer: u.shards[i].holder, Epoch: u.shards[i].moves}
		switch {
		case i == shard:
			h.Peer = peer
		case h.Peer.IsZero() && len(u.shards[i].running) > 0:
			h.Peer = u.shards[i].running[0].peer
		case h.Peer.IsZero() && len(u.choice.planned) > 0:
			h.Peer = u.choice.planned[i]
		}
		if h.Peer.IsZero() {
			continue
		}
		list = append(list, h)
	}
	return list
}

// replace finds other peers for shards that nobody holds or is getting.
func (u *upload) replace(ctx context.Context) {
	for shard := range u.shards {
		if s := &u.shards[shard]; s.holder.IsZero() && len(s.running) == 0 && u.segment.shards[shard] != nil {
			u.startElsewhere(ctx, shard)
		}
	}
}

// startElsewhere sends a shard to the next best peer, if there is one and time
// for it.
func (u *upload) startElsewhere(ctx context.Context, shard int) {
	if u.left == 0 || (!u.enough.IsZero() && time.Since(u.enough) > u.grace()) {
		return
	}
	peer, ok := u.choice.next(u.shards, u.need())
	if ok {
		u.shards[shard].moved()
		u.start(ctx, shard, peer)
	}
}

// need says how badly the next shard needs a place.
func (u *upload) need() need {
	switch sound := u.sound(); {
	case sound < u.r.K:
		return needRestore
	case sound < u.r.CommitAt():
		return needCommit
	}
	return u.urge
}

// sound counts the shards that are durable or are getting there at an ordinary
// pace.
func (u *upload) sound() int {
	n := 0
	for i := range u.shards {
		if !u.shards[i].holder.IsZero() || slices.ContainsFunc(u.shards[i].running, isSound) {
			n++
		}
	}
	return n
}

// acked counts the durable shards.
func (u *upload) acked() int {
	n := 0
	for i := range u.shards {
		if !u.shards[i].holder.IsZero() {
			n++
		}
	}
	return n
}

// take notes how an attempt ended. A shard that is durable counts even when it
// was given up before.
func (u *upload) take(o outcome) {
	late := o.over
	if o.sample {
		if !late {
			u.checked(o)
		}
		return
	}
	u.finish(o.attempt)
	s := &u.shards[o.shard]
	switch {
	case o.err != nil && !late:
		u.failed(o.attempt, o.err)
	case o.err == nil && s.holder.IsZero() && !u.choice.liars[o.peer]:
		s.holder, s.told, s.found = o.peer, o.told, false
		u.pace.add(o.took)
		u.s.peers.worked(o.peer, len(u.segment.shards[o.shard]), o.took)
		for len(s.running) > 0 {
			slow := s.running[0]
			u.finish(slow)
			slow.cancel(errEnough)
			u.s.peers.failed(slow.peer, errStraggler, toPut)
		}
	}
	u.count()
}

// count notes since when there are enough durable shards.
func (u *upload) count() {
	acked, now := u.acked(), time.Now()
	if u.usable.IsZero() && acked >= u.r.K {
		u.usable = now
	}
	if u.enough.IsZero() && !u.patient && acked >= u.r.CommitAt() {
		u.enough = now
	}
}

// finish takes an attempt off the list of those that run.
func (u *upload) finish(a *attempt) {
	a.over = true
	s := &u.shards[a.shard]
	s.running = slices.DeleteFunc(s.running, func(other *attempt) bool { return other == a })
}

// failed notes why a peer did not take a shard.
func (u *upload) failed(a *attempt, err error) {
	u.causes.add(a.peer, err)
	u.s.peers.failed(a.peer, err, toPut)
	u.choice.bad[a.peer] = true
	u.s.cfg.Logger.Debug("shard not stored", "peer", a.peer, "segment", u.segment.header.ID, "shard", a.shard, "err", err)
}

// settled reports whether there is nothing left to wait for.
func (u *upload) settled() bool {
	return len(u.running()) == 0 && len(u.check.running) == 0
}
