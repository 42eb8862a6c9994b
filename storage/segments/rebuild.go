package segments

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
)

// RebuildJob says what a segment lacks.
type RebuildJob struct {
	Header  storage.SignedHeader // its signature is verified again
	Sources []storage.Holder     // who is said to have which shard; several may have one
	Missing []int                // shards to be made, all in one pass; one that Sources has too moves
	Away    []storage.Holder     // who is expected back with which shard, so that nobody makes it
	Back    map[int]grid.PeerID  // who lost a shard and gets it again
	Avoid   map[grid.PeerID]bool // who gets nothing; what they have may still be read
	Data    []byte               // the segment, if at hand; not believed
	// Wait is for how long a place is kept for a peer without a shard that is
	// away, rather than give others two of them, or sites more than their limit.
	Wait time.Duration
	// Move says that the missing shards exist and would be better elsewhere: they
	// are placed only with a peer that has none, on a site below its limit.
	Move bool
}

// Rebuilt says what became of a segment.
type Rebuilt struct {
	Holders       []storage.Holder // who has which shard now, as far as known; placed ones with a raised epoch
	Placed        []int            // shards that were stored now
	Missing       []int            // shards that nobody is known to have, not even away
	Bytes         int64            // that were stored now
	SurvivesSites int              // sites that may vanish, whichever they are; −1: it cannot be read
	Problem       string           // what is not as it should be, in words; empty: nothing
	Causes        []PeerError      // why peers did not help
}

// Rebuild makes the missing shards of a segment and places each: with the peer
// that lost it, else with the best one that has none of this segment, on a site
// below its limit if there is one. It needs neither a key nor a grant, because
// the header vouches for every shard. The bytes come from Data, from the spool,
// from the holders of the very shards where that is less to read, else from any
// k shards; this peer's own store is asked first. What is found missing or bad
// on the way is made anew too. Then the other holders are told who has what.
//
// When the segment cannot be read the error is a *TooFewError. Shards for which
// there is no place are in Missing, without an error.
func (s *Segments) Rebuild(ctx context.Context, job RebuildJob) (Rebuilt, error) {
	b, err := newRebuild(s, job)
	if err == nil {
		err = b.run(ctx)
	}
	if err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild segment %s: %w", job.Header.ID.Short(), err)
	}
	return b.result(), nil
}

// Header returns the header of a segment, verified but for its signature, as the
// first holder gave it, or as it is remembered. Without one the error is a
// *TooFewError.
func (s *Segments) Header(ctx context.Context, id storage.SegmentID, holders []storage.Holder) (storage.SignedHeader, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	known, err := s.learn(ctx, id, Hint{Holders: holders})
	if err != nil {
		return storage.SignedHeader{}, fmt.Errorf("header of segment: %w", err)
	}
	return known.header, nil
}

// rebuild is one segment that is being repaired. One goroutine owns it.
type rebuild struct {
	s       *Segments
	job     RebuildJob
	header  storage.SignedHeader
	r       storage.Redundancy
	missing []int       // shards to be made, by rising index
	shards  []upShard   // who has which, before anything is placed
	made    *encoded    // the missing ones; nil: not yet
	upload  *upload     // nil: nothing was placed
	lost    []lostShard // that turned out to be without
	causes  causes
}

func newRebuild(s *Segments, job RebuildJob) (*rebuild, error) {
	header, err := storage.ParseSignedHeader(job.Header.Raw)
	if err != nil {
		return nil, err
	}
	b := &rebuild{s: s, job: job, header: header, r: header.Redundancy, shards: make([]upShard, header.Redundancy.N)}
	for _, shard := range job.Missing {
		if shard < 0 || shard >= b.r.N {
			return nil, fmt.Errorf("no shard %d of %s", shard, b.r)
		}
		b.miss(shard)
	}
	for _, h := range job.Sources {
		if h.Shard < 0 || h.Shard >= b.r.N || h.Peer.IsZero() {
			continue
		}
		known := &b.shards[h.Shard]
		known.moves = max(known.moves, h.Epoch)
		if b.wanted(h.Shard) || (!known.holder.IsZero() && !job.Avoid[known.holder]) {
			continue
		}
		known.holder, known.found = h.Peer, true
	}
	for _, h := range job.Away {
		if h.Shard < 0 || h.Shard >= b.r.N || h.Peer.IsZero() || !b.shards[h.Shard].holder.IsZero() || b.wanted(h.Shard) {
			continue
		}
		b.shards[h.Shard] = upShard{holder: h.Peer, found: true, away: true, moves: h.Epoch}
	}
	return b, nil
}

// miss adds a shard to those to be made.
func (b *rebuild) miss(shard int) {
	if at, known := slices.BinarySearch(b.missing, shard); !known {
		b.missing = slices.Insert(b.missing, at, shard)
	}
}

func (b *rebuild) wanted(shard int) bool {
	_, ok := slices.BinarySearch(b.missing, shard)
	return ok
}

func (b *rebuild) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	candidates := slices.DeleteFunc(b.s.cfg.Holders.Candidates(ctx, b.header.Owner, b.header.Signer),
		func(c placement.Candidate) bool {
			return b.job.Avoid[c.Peer] || (c.Away && time.Since(c.Seen) >= b.job.Wait)
		})
	if len(b.missing) == 0 || !b.hasPlace(candidates) {
		return context.Cause(ctx)
	}
	release, err := b.s.reserve(ctx, b.memory())
	if err != nil {
		return err
	}
	defer release()
	if err := b.make(ctx); err != nil {
		return err
	}
	defer b.made.lease.release()
	b.upload = b.newUpload(candidates)
	b.startBack(ctx)
	if err := b.upload.run(ctx); err != nil {
		return err
	}
	b.tell(ctx)
	return context.Cause(ctx)
}

// newUpload returns the transfer of what was made.
func (b *rebuild) newUpload(candidates []placement.Candidate) *upload {
	u := newTransfer(b.s, b.made, candidates)
	u.shards = b.shards
	u.patient = true
	u.urge = b.urge()
	for i := range u.shards {
		if !u.shards[i].holder.IsZero() {
			u.choice.use(u.shards[i].holder)
		}
	}
	for _, src := range b.lost {
		if src.bad {
			u.choice.use(src.peer)
			u.choice.bad[src.peer] = true
		}
	}
	return u
}

// urge says how badly shards need a place that the commit rule does not.
func (b *rebuild) urge() need {
	if b.job.Move {
		return needBetter
	}
	return needPlace
}

// hasPlace reports whether any missing shard could be placed now, so that
// nothing is read in vain.
func (b *rebuild) hasPlace(candidates []placement.Candidate) bool {
	b.made = &encoded{header: b.header, shards: make([][]byte, b.r.N)}
	u := b.newUpload(candidates)
	b.made = nil
	if _, ok := u.choice.next(u.shards, u.need()); ok {
		return true
	}
	return slices.ContainsFunc(b.missing, func(shard int) bool { return u.takesBack(b.job.Back[shard]) })
}

// takesBack reports whether a peer may be given a shard again.
func (u *upload) takesBack(peer grid.PeerID) bool {
	k, ok := u.choice.candidate(peer)
	return ok && !k.Away && k.Free >= uint64(u.segment.header.ShardBytes) && u.s.peers.skip(peer, toPut) == nil
}

// startBack gives shards to those who lost them.
func (b *rebuild) startBack(ctx context.Context) {
	var back []int
	for _, shard := range b.missing {
		if peer := b.job.Back[shard]; !b.job.Move && b.upload.takesBack(peer) && !b.upload.choice.used[peer] {
			back = append(back, shard)
		}
	}
	for _, shard := range back {
		b.upload.shards[shard].moved()
		b.upload.start(ctx, shard, b.job.Back[shard])
	}
}

// tell gives the holder list to all holders that have another one. Whoever has
// lost its shard meanwhile is found out by that.
func (b *rebuild) tell(ctx context.Context) {
	list := b.holders()
	if !slices.ContainsFunc(b.missing, func(i int) bool { return !b.shards[i].holder.IsZero() }) {
		return
	}
	shardsOf := map[grid.PeerID][]int{}
	for i := range b.shards {
		if s := &b.shards[i]; !s.holder.IsZero() && !s.away && !slices.Equal(s.told, list) {
			shardsOf[s.holder] = append(shardsOf[s.holder], i)
		}
	}
	peers := slices.Collect(maps.Keys(shardsOf))
	limit := b.s.limitFor(b.s.cfg.AskTimeout)
	answers := askEach(ctx, b.s, peers, limit, func(ctx context.Context, peer grid.PeerID, store storage.RemoteShards) ([]int, error) {
		var lost []int
		for _, shard := range shardsOf[peer] {
			w, err := store.CreateShard(ctx, b.header, shard, list)
			switch {
			case err == nil:
				w.Abort()
				lost = append(lost, shard)
			case !errors.Is(err, storage.ErrExists):
				return lost, err
			}
		}
		return lost, nil
	})
	for a := range answers {
		if a.err != nil {
			b.s.peers.failed(a.peer, a.err, toGet)
			b.causes.add(a.peer, a.err)
		}
		for _, shard := range a.answer {
			b.shards[shard].holder = grid.PeerID{}
			b.causes.add(a.peer, storage.ErrNotFound)
		}
	}
}

// holders returns who has which shard, those who are away included.
func (b *rebuild) holders() []storage.Holder {
	var out []storage.Holder
	for i := range b.shards {
		if s := &b.shards[i]; !s.holder.IsZero() {
			out = append(out, storage.Holder{Shard: i, Peer: s.holder, Epoch: s.moves})
		}
	}
	return out
}

// stay finds the shards again that could not be placed elsewhere and are where
// they were.
func (b *rebuild) stay() (count int) {
	for _, i := range b.missing {
		at := slices.IndexFunc(b.job.Sources, func(h storage.Holder) bool { return h.Shard == i && b.mayHave(h) })
		if s := &b.shards[i]; s.holder.IsZero() && at >= 0 {
			s.holder, s.found, s.moves = b.job.Sources[at].Peer, true, b.job.Sources[at].Epoch
			count++
		}
	}
	return count
}

// result sums up.
func (b *rebuild) result() Rebuilt {
	stay := b.stay()
	out := Rebuilt{Causes: b.causes}
	sites := map[int]string{}
	for i := range b.shards {
		s := &b.shards[i]
		switch {
		case s.holder.IsZero():
			out.Missing = append(out.Missing, i)
			continue
		case s.away:
			continue
		case !s.found:
			out.Placed = append(out.Placed, i)
			out.Bytes += int64(b.header.ShardBytes)
		}
		out.Holders = append(out.Holders, storage.Holder{Shard: i, Peer: s.holder, Epoch: s.moves})
		sites[i] = b.s.cfg.Holders.Site(s.holder)
	}
	out.SurvivesSites = placement.SurvivesSites(b.r, sites)
	_, out.Problem = describe(b.r, sites)
	switch {
	case len(out.Missing) > 0:
		out.Problem = fmt.Sprintf("nobody who is here and has room takes %d of %d shards", len(out.Missing), b.r.N)
	case stay > 0:
		out.Problem = fmt.Sprintf("nobody who is here and has room takes over %d of %d shards", stay, b.r.N)
	case b.s.cfg.Spool != nil:
		b.s.cfg.Spool.Remove(b.header.ID)
	}
	if b.upload != nil {
		out.Causes = append(out.Causes, b.upload.causes...)
	}
	return out
}
