package segments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
)

// Put says what became of a segment.
type Put struct {
	ID         storage.SegmentID
	Header     storage.SignedHeader
	Redundancy storage.Redundancy
	Holders    []storage.Holder // of the shards that are durable, by shard
	Missing    []int            // shards that nobody holds yet

	Acked     int  // durable shards
	Committed bool // the commit rule holds and a sample was read back
	Complete  bool // all n shards are durable

	Sites         int    // different sites on which they are
	SurvivesSites int    // sites that may vanish, whichever they are
	Problem       string // what the placement could not keep to, in words; empty: nothing

	Causes []PeerError // why peers did not take shards
}

// Put stores data, 1 to storage.MaxSegmentBytes, as one segment. It keeps no
// reference to data. It returns nil when at least k shards are durable: see
// Committed and Complete. With fewer the error is a *TooFewError, and what was
// stored is of no use. When no peer has room for the shards the error is
// storage.ErrTooFewPeers.
func (s *Segments) Put(ctx context.Context, data []byte) (Put, error) {
	if len(data) == 0 || len(data) > storage.MaxSegmentBytes {
		return Put{}, fmt.Errorf("put segment: %d bytes, want 1 to %d", len(data), storage.MaxSegmentBytes)
	}
	if s.cfg.Grant == nil {
		return Put{}, fmt.Errorf("put segment: this peer has no grant to write: %w", storage.ErrDenied)
	}
	put, err := s.put(ctx, data)
	if err != nil {
		return put, fmt.Errorf("put segment: %w", err)
	}
	return put, nil
}

func (s *Segments) put(ctx context.Context, data []byte) (Put, error) {
	candidates := s.cfg.Holders.Candidates(ctx)
	r, err := s.redundancy(len(data), candidates)
	if err != nil {
		return Put{}, err
	}
	release, err := s.reserve(ctx, memoryFor(len(data), r))
	if err != nil {
		return Put{}, err
	}
	defer release()
	segment, err := s.encode(data, r)
	if err != nil {
		return Put{}, err
	}
	defer segment.lease.release()
	plan, err := placement.Choose(segment.header.ID, r, segment.header.ShardBytes, candidates)
	if err != nil {
		return Put{}, err
	}
	return newUpload(s, segment, plan, candidates).run(ctx)
}

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
	left    int // attempts that may still be started
	pace    pace
	began   time.Time
	enough  time.Time // when the commit rule first held
	check   check
	causes  causes
}

// upShard is what is known of one shard.
type upShard struct {
	holder  grid.PeerID // zero: not durable anywhere
	moves   uint32      // how often it was given to another peer
	running []*attempt
}

func newUpload(s *Segments, segment *encoded, plan *placement.Plan, candidates []placement.Candidate) *upload {
	n := plan.Redundancy.N
	return &upload{
		s: s, segment: segment, r: plan.Redundancy,
		choice:  newChoice(s, segment.header, plan, candidates),
		shards:  make([]upShard, n),
		results: make(chan outcome, n*attemptsPerShard+checksMax),
		left:    n * attemptsPerShard,
		began:   time.Now(),
	}
}

// run sends the shards and returns when nothing more is to be had in time.
func (u *upload) run(ctx context.Context) (Put, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	alarm := newAlarm()
	defer alarm.at(time.Time{})
	u.startPlanned(ctx)
	for {
		u.replace(ctx)
		u.startCheck(ctx)
		if u.settled() {
			return u.result()
		}
		select {
		case o := <-u.results:
			u.take(o)
		case now := <-alarm.at(u.nextEvent()):
			u.onTime(ctx, now)
		case <-ctx.Done():
			return Put{}, context.Cause(ctx)
		}
	}
}

// startPlanned starts with the holders of the plan, except those that failed a
// moment ago: they come last.
func (u *upload) startPlanned(ctx context.Context) {
	for shard, peer := range u.choice.plan.Peers {
		if err := u.s.peers.skip(peer, toPut); err != nil {
			u.causes.add(peer, err)
			continue
		}
		u.start(ctx, shard, peer)
	}
}

// start sends a shard to a peer.
func (u *upload) start(ctx context.Context, shard int, peer grid.PeerID) {
	a := newAttempt(ctx, peer, shard, u.s.cfg.IdleTimeout)
	u.left--
	u.choice.use(peer)
	u.shards[shard].running = append(u.shards[shard].running, a)
	holders := u.holders(shard, peer)
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
		case h.Peer.IsZero():
			h.Peer = u.choice.plan.Peers[i]
		}
		list = append(list, h)
	}
	return list
}

// replace finds other peers for shards that nobody holds or is getting.
func (u *upload) replace(ctx context.Context) {
	for shard := range u.shards {
		if s := &u.shards[shard]; s.holder.IsZero() && len(s.running) == 0 {
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
	peer, ok := u.choice.next(u.shards, u.sound() < u.r.CommitAt())
	if ok {
		u.shards[shard].moves++
		u.start(ctx, shard, peer)
	}
}

// sound counts the shards that are durable or are getting there at an ordinary
// pace.
func (u *upload) sound() int {
	n := 0
	for i := range u.shards {
		ok := !u.shards[i].holder.IsZero()
		for _, a := range u.shards[i].running {
			ok = ok || !a.hedged
		}
		if ok {
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
		s.holder = o.peer
		u.pace.add(o.took)
		u.s.peers.worked(o.peer, len(u.segment.shards[o.shard]), o.took)
		for len(s.running) > 0 {
			slow := s.running[0]
			u.finish(slow)
			slow.cancel(errEnough)
			u.s.peers.failed(slow.peer, errStraggler, toPut)
		}
	}
	if u.enough.IsZero() && u.acked() >= u.r.CommitAt() {
		u.enough = time.Now()
	}
}

// finish takes an attempt off the list of those that run.
func (u *upload) finish(a *attempt) {
	a.over = true
	running := u.shards[a.shard].running[:0]
	for _, other := range u.shards[a.shard].running {
		if other != a {
			running = append(running, other)
		}
	}
	u.shards[a.shard].running = running
}

// failed notes why a peer did not take a shard.
func (u *upload) failed(a *attempt, err error) {
	u.causes.add(a.peer, err)
	u.s.peers.failed(a.peer, err, toPut)
	u.choice.bad[a.peer] = true
	u.s.cfg.Logger.Debug("shard not stored", "peer", a.peer, "segment", u.segment.header.ID, "shard", a.shard, "err", err)
}

// grace is how long transfers may run on once the segment is committed.
func (u *upload) grace() time.Duration {
	factor := time.Duration(u.s.cfg.StragglerFactor * float64(u.pace.slowest))
	return max(u.s.cfg.StragglerMin, factor)
}

// stragglerAt returns when a transfer is given up for being too slow; the zero
// time means not yet.
func (u *upload) stragglerAt(a *attempt) time.Time {
	if u.enough.IsZero() {
		return time.Time{}
	}
	from := u.enough
	if a.started.After(from) {
		from = a.started
	}
	return from.Add(u.grace())
}

func (u *upload) overdueAt(a *attempt) time.Time {
	return a.overdueAt(u.s.cfg.HedgeMin, u.s.cfg.HedgeFactor, u.pace)
}

// each calls f with every running attempt; f may finish it.
func (u *upload) each(f func(a *attempt)) {
	for i := range u.shards {
		for _, a := range append([]*attempt(nil), u.shards[i].running...) {
			f(a)
		}
	}
}

// nextEvent returns when time alone will change something.
func (u *upload) nextEvent() (when time.Time) {
	u.each(func(a *attempt) {
		when = earliest(when, a.idleAt())
		when = earliest(when, u.stragglerAt(a))
		if !a.hedged {
			when = earliest(when, u.overdueAt(a))
		}
	})
	if u.check.running != nil {
		when = earliest(when, u.check.running.idleAt())
	}
	return when
}

// onTime gives up what stands still or came too late, and tries another peer
// beside one that is slow.
func (u *upload) onTime(ctx context.Context, now time.Time) {
	reached := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	u.each(func(a *attempt) {
		switch {
		case reached(a.idleAt()):
			u.giveUp(a, errIdle)
		case reached(u.stragglerAt(a)):
			u.giveUp(a, errStraggler)
		case !a.hedged && reached(u.overdueAt(a)):
			a.hedged = true
			u.startElsewhere(ctx, a.shard)
		}
	})
	if c := u.check.running; c != nil && reached(c.idleAt()) {
		u.checked(outcome{attempt: c, err: errIdle})
	}
}

func (u *upload) giveUp(a *attempt, err error) {
	u.finish(a)
	a.cancel(err)
	u.failed(a, err)
}

// settled reports whether there is nothing left to wait for.
func (u *upload) settled() bool {
	running := u.check.running != nil
	u.each(func(*attempt) { running = true })
	return !running
}

// result sums up.
func (u *upload) result() (Put, error) {
	acked := u.acked()
	if acked < u.r.K {
		return Put{}, &TooFewError{
			Segment: u.segment.header.ID, Need: u.r.K, Of: u.r.N, Answered: acked,
			Missing: u.causes.peersOf(), Causes: u.causes, kind: storage.ErrTooFewPeers,
		}
	}
	put := Put{
		ID: u.segment.header.ID, Header: u.segment.header, Redundancy: u.r,
		Acked: acked, Complete: acked == u.r.N,
		Committed: acked >= u.r.CommitAt() && u.check.passed,
		Causes:    u.causes,
	}
	sites := map[int]string{}
	for i := range u.shards {
		if s := &u.shards[i]; s.holder.IsZero() {
			put.Missing = append(put.Missing, i)
		} else {
			put.Holders = append(put.Holders, storage.Holder{Shard: i, Peer: s.holder, Epoch: s.moves})
			sites[i] = u.choice.site(s.holder)
		}
	}
	put.SurvivesSites = placement.SurvivesSites(u.r, sites)
	put.Sites, put.Problem = describe(u.r, sites)
	return put, nil
}

// describe counts sites and says in words which limit was not kept.
func describe(r storage.Redundancy, sites map[int]string) (count int, problem string) {
	load, worst := map[string]int{}, 0
	for _, site := range sites {
		load[site]++
		worst = max(worst, load[site])
	}
	if limit := r.PerSite(); worst > limit {
		problem = fmt.Sprintf("too few sites took shards: one holds %d of %d, where at most %d should be", worst, r.N, limit)
	}
	return len(load), problem
}

// send streams one shard of the segment to the peer of the attempt.
func (s *Segments) send(a *attempt, segment *encoded, holders []storage.Holder) error {
	store, err := s.cfg.Holders.Shards(a.peer)
	if err != nil {
		return err
	}
	w, err := store.CreateShard(a.ctx, segment.header, a.shard, holders)
	if errors.Is(err, storage.ErrExists) {
		return nil
	}
	if err != nil {
		return cause(a.ctx, err)
	}
	defer w.Abort()
	a.beat(s.cfg.IdleTimeout)
	if err := s.sendBytes(a, w, segment); err != nil {
		return cause(a.ctx, err)
	}
	a.beat(s.cfg.CommitTimeout)
	if w, ok := w.(progressWriter); ok {
		w.OnProgress(func() { a.beat(s.cfg.CommitTimeout) })
	}
	if err := w.Commit(); err != nil {
		return cause(a.ctx, err)
	}
	return nil
}

// sendPiece is how much is handed to a writer at once; each piece is a sign of
// life.
const sendPiece = 256 << 10

// sharedWriter is a writer that can take bytes without copying them, such as
// that of another peer: the bytes stay unchanged until it releases them.
type sharedWriter interface {
	WriteShared(p []byte, release func()) (int, error)
}

// progressWriter is a writer that tells, while Commit waits, that bytes arrive.
type progressWriter interface{ OnProgress(func()) }

func (s *Segments) sendBytes(a *attempt, w storage.ShardWriter, segment *encoded) error {
	shared, ok := w.(sharedWriter)
	data := segment.shards[a.shard]
	for len(data) > 0 {
		n := min(sendPiece, len(data))
		var err error
		if ok {
			segment.lease.hold()
			_, err = shared.WriteShared(data[:n], segment.lease.release)
		} else {
			_, err = w.Write(data[:n])
		}
		if err != nil {
			return err
		}
		a.beat(s.cfg.IdleTimeout)
		data = data[n:]
	}
	return nil
}

// cause returns why ctx ended, if it did and that is what err is about, else
// err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return context.Cause(ctx)
	}
	return err
}
