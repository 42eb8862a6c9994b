package repair

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/storage/segments"
)

const (
	// auditTimeout bounds one challenge; a read is given the time that a slow
	// line takes besides.
	auditTimeout  = time.Minute
	slowLineBytes = 32 << 10 // bytes each second that a line is expected to give
	// readOneIn: of so many challenges one reads the whole shard instead of
	// asking for a proof, so that a holder which only answers audits is found.
	readOneIn = 8
	// eagerness is by how much more often a peer is challenged that was found
	// out lately.
	eagerness = 8
	// oneLoss is how long losses that a holder admits count as the same.
	oneLoss = 24 * time.Hour
)

// audits challenges holders at random times: for each of them the times are a
// Poisson process, so nobody can know when to have what.
// A read that failed is followed by a challenge at once.
func (r *Repairer) audits(ctx context.Context) {
	for {
		peer, wait := r.nextAudit()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case d := <-r.doubts:
			timer.Stop()
			r.challenge(ctx, d.peer, d.shard, true)
			continue
		case <-timer.C:
		}
		if shard, ok := r.claims.pick(peer); ok {
			r.challenge(ctx, peer, shard, rand.IntN(readOneIn) == 0)
		}
	}
}

// maxDoubts bounds the failed reads that wait to be followed up.
const maxDoubts = 256

// Doubt takes in that a peer did not give a shard that it is thought to have,
// whoever wanted to read it. The peer may have moved or lost it in good faith;
// so it is asked whether it still claims the shard, and read again.
func (r *Repairer) Doubt(peer grid.PeerID, shard storage.ShardID) {
	if peer == r.cfg().Self {
		return
	}
	select {
	case r.doubts <- place{peer, shard}:
	default: // there is enough to do; the audits go on
	}
}

// nextAudit returns whom to challenge next, and after what time.
func (r *Repairer) nextAudit() (grid.PeerID, time.Duration) {
	now := time.Now()
	alive := map[grid.PeerID]bool{}
	for _, p := range r.cfg().Grid.Peers() {
		alive[p.ID] = p.State == grid.StateAlive
	}
	var peers []grid.PeerID
	total := 0
	for _, peer := range r.claims.peers() {
		if !alive[peer] {
			continue
		}
		weight := 1
		if g := r.memory.grade(peer, now); g == GradePoor || g == GradeBad {
			weight = eagerness
		}
		for range weight {
			peers = append(peers, peer)
		}
		total += weight
	}
	if total == 0 {
		return grid.PeerID{}, min(r.cfg().Interval, r.cfg().Audits)
	}
	return peers[rand.IntN(total)], time.Duration(rand.ExpFloat64() * float64(r.cfg().Audits) / float64(total))
}

// challenge has a peer prove, or deliver, a shard and remembers the outcome.
func (r *Repairer) challenge(ctx context.Context, peer grid.PeerID, shard storage.ShardID, read bool) {
	outcome, admitted := r.ask(ctx, peer, shard, read)
	if ctx.Err() != nil {
		return
	}
	r.noteChallenge(peer, shard, read, outcome, admitted)
}

// ask makes one challenge; see try.
func (r *Repairer) ask(ctx context.Context, peer grid.PeerID, shard storage.ShardID, read bool) (outcome Outcome, admitted bool) {
	header, err := r.cfg().Segments.Header(ctx, shard.Segment, []storage.Holder{{Shard: shard.Index, Peer: peer}})
	if err != nil && !read {
		read = true // nobody else knows the header: it comes with the shard
	}
	return r.try(ctx, peer, shard, header, read)
}

// noteChallenge remembers the outcome of a challenge.
func (r *Repairer) noteChallenge(peer grid.PeerID, shard storage.ShardID, read bool, outcome Outcome, admitted bool) {
	if outcome == "" {
		r.claims.drop(peer, shard)
		return
	}
	if outcome.faulty() {
		r.cfg().Logger.Warn("a holder failed a challenge", "peer", peer, "segment", shard.Segment.Short(), "shard", shard.Index,
			"outcome", string(outcome), "read", read, "admitted", admitted)
	}
	// A disk that was replaced is one fault, however many shards were on it.
	if now := time.Now(); !admitted || !r.memory.faultySince(peer, now.Add(-oneLoss)) {
		r.memory.note(peer, shard, Event{At: now, Outcome: outcome, Read: read})
	}
	if !outcome.faulty() {
		return
	}
	if admitted { // it no longer says that it has the shard, so it may get it back
		r.memory.acquit(peer, shard)
	}
	r.claims.drop(peer, shard)
	r.suspect(shard.Segment)
}

// try makes one challenge. When it fails the peer is asked whether it still
// claims the shard: what was deleted meanwhile, or is no longer there because
// another member has it, is no fault, and the outcome is empty; a loss that it
// admits is told apart from a lie.
func (r *Repairer) try(ctx context.Context, peer grid.PeerID, shard storage.ShardID, header storage.SignedHeader, read bool) (outcome Outcome, admitted bool) {
	once := func() Outcome {
		if read {
			return outcomeOf(r.readWhole(ctx, peer, shard))
		}
		ctx, cancel := context.WithTimeout(ctx, auditTimeout)
		defer cancel()
		groups := randomGroups(storage.ProofGroups(header.ShardBytes), r.cfg().Groups)
		return outcomeOf(r.cfg().Segments.Audit(ctx, peer, shard, header.Roots[shard.Index], header.ShardBytes, groups))
	}
	outcome = once()
	if !outcome.faulty() {
		return outcome, false
	}
	switch state := r.stateAt(ctx, peer, shard); state {
	case storage.ShardStored:
		return once(), false
	case storage.ShardTrash, storage.ShardDeleted, "":
		return "", false
	case storage.ShardNone:
		if r.kept(ctx, peer, shard) {
			return "", false
		}
	}
	return outcome, true
}

// kept reports whether another trusted member says to have a shard that one does
// not have any more: it was moved, or let go as surplus.
func (r *Repairer) kept(ctx context.Context, peer grid.PeerID, shard storage.ShardID) bool {
	surveys, err := r.cfg().Segments.Survey(ctx, []segments.Ask{{ID: shard.Segment}})
	if err != nil || len(surveys) != 1 || shard.Index >= len(surveys[0].Shards) {
		return false
	}
	scene := r.scene(time.Now())
	return slices.ContainsFunc(surveys[0].Shards[shard.Index], func(c segments.Copy) bool {
		_, member := scene.Peers[c.Peer]
		return member && c.Peer != peer && c.State == storage.ShardStored && !scene.Distrusted(c.Peer, shard)
	})
}

// stateAt returns what a peer says about one shard; empty: no answer.
func (r *Repairer) stateAt(ctx context.Context, peer grid.PeerID, shard storage.ShardID) storage.ShardState {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	store, err := r.cfg().Grid.Shards(peer)
	if err != nil {
		return ""
	}
	answers, err := store.Have(ctx, []storage.SegmentID{shard.Segment})
	if err != nil || len(answers) != 1 {
		return ""
	}
	for _, a := range answers[0].Shards {
		if a.Index == shard.Index || a.State == storage.ShardDeleted {
			return a.State
		}
	}
	return storage.ShardNone
}

// readWhole reads a shard and compares it with the root in its header, which
// the id vouches for.
func (r *Repairer) readWhole(ctx context.Context, peer grid.PeerID, shard storage.ShardID) error {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout+storage.MaxShardBytes/slowLineBytes*time.Second)
	defer cancel()
	store, err := r.cfg().Grid.Shards(peer)
	if err != nil {
		return err
	}
	reader, err := store.OpenShard(ctx, shard, 0, -1)
	if err != nil {
		return err
	}
	defer reader.Close()
	header, err := storage.ParseKnownHeader(reader.Header().Raw, shard.Segment)
	if err != nil {
		return err
	}
	if err := r.budget.wait(ctx, int64(header.ShardBytes)); err != nil {
		return err
	}
	hash := blake3.New()
	n, err := io.Copy(hash, io.LimitReader(reader, int64(header.ShardBytes)+1))
	if err != nil {
		return err
	}
	if shard.Index >= len(header.Roots) || n != int64(header.ShardBytes) || hash.Sum256() != header.Roots[shard.Index] {
		return errors.Join(storage.ErrCorrupt, errors.New("the shard read is not the one that the header names"))
	}
	return nil
}

// randomGroups returns some of n groups, each at most once.
func randomGroups(n, some int) []int {
	groups := rand.Perm(n)
	return groups[:min(some, n, storage.MaxProofGroups)]
}
