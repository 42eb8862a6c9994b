package segments

import (
	"context"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/storage"
)

// surveyAtOnce is about how many segments peers are asked at once. What they
// may answer to that, at worst 2 KiB for each segment and peer, is in memory.
const surveyAtOnce = 512

// Ask is a question about one segment.
type Ask struct {
	ID      storage.SegmentID
	N       int              // shards that there should be; 0: not known
	Holders []storage.Holder // who is thought to have them: they are asked first
	All     bool             // every member is asked, to find copies of shards that are accounted for
}

// Copy is what a peer says of one shard.
type Copy struct {
	Peer  grid.PeerID
	State storage.ShardState
}

// Survey is what the members say about one segment. None of it is proven: a
// peer may claim to have what it lacks, and that a segment was deleted. Audit
// proves the one, the signed batches of storage.DeletionStore the other.
type Survey struct {
	ID      storage.SegmentID
	Shards  [][]Copy         // by index: all answers but "no"; who says deleted is at 0
	Holders []storage.Holder // for each shard the newest word on who holds it, of those who asked and answered
	Refused []storage.Holder // of Holders: says that it does not have it, or that it is bad, or is no member
	Silent  []storage.Holder // of Holders: did not answer
	Deleted bool             // somebody says that the owner deleted it
	All     bool             // every member answered
}

// Stored returns the shards that somebody says to have, in trash or not, each
// by one holder with the epoch that is known of it, by rising index.
func (v *Survey) Stored() []storage.Holder {
	var out []storage.Holder
	for i, copies := range v.Shards {
		at := slices.IndexFunc(v.Holders, func(h storage.Holder) bool { return h.Shard == i })
		best := storage.Holder{Shard: i}
		if at >= 0 {
			best.Epoch = v.Holders[at].Epoch
		}
		for _, c := range copies {
			if c.State != storage.ShardStored && c.State != storage.ShardTrash {
				continue
			}
			if best.Peer.IsZero() || (at >= 0 && c.Peer == v.Holders[at].Peer) {
				best.Peer = c.Peer
			}
		}
		if !best.Peer.IsZero() {
			out = append(out, best)
		}
	}
	return out
}

// Survey asks who has which shards of the given segments: first those that are
// thought to hold them, then, for segments of which a shard is not accounted
// for or where Ask.All says so, every member. The answers are in the order of asks. A peer that does not
// answer costs its time once, beside the others. The error is that of ctx.
func (s *Segments) Survey(ctx context.Context, asks []Ask) ([]Survey, error) {
	out := make([]Survey, 0, len(asks))
	silent := map[grid.PeerID]bool{}
	for batch := range slices.Chunk(asks, surveyAtOnce) {
		r := newSurveyRound(s, batch, silent)
		err := r.run(ctx)
		if err != nil {
			return nil, fmt.Errorf("survey: %w", err)
		}
		out = append(out, r.surveys...)
	}
	return out, nil
}

// surveyRound is the survey of one batch. One goroutine owns it.
type surveyRound struct {
	s        *Segments
	asks     []Ask
	surveys  []Survey
	members  []grid.PeerID
	answered []map[grid.PeerID]bool // by segment
	silent   map[grid.PeerID]bool   // did not answer a question of this survey
}

func newSurveyRound(s *Segments, asks []Ask, silent map[grid.PeerID]bool) *surveyRound {
	r := &surveyRound{
		s: s, asks: asks, silent: silent, surveys: make([]Survey, len(asks)),
		members: slices.Clone(s.cfg.Holders.Members()), answered: make([]map[grid.PeerID]bool, len(asks)),
	}
	for i, ask := range asks {
		n := ask.N
		if n <= 0 || n > storage.MaxShards {
			n = storage.MaxShards
		}
		r.surveys[i] = Survey{ID: ask.ID, Shards: make([][]Copy, n), Holders: storage.MergeHolders(ask.Holders, nil, n)}
		r.answered[i] = map[grid.PeerID]bool{}
	}
	return r
}

func (r *surveyRound) run(ctx context.Context) error {
	if err := r.ask(ctx, r.hinted()); err != nil {
		return err
	}
	if err := r.ask(ctx, r.rest()); err != nil {
		return err
	}
	for i := range r.surveys {
		r.conclude(i)
	}
	return nil
}

// hinted returns which segments to ask the peers about that are thought to hold
// them, as indexes into asks.
func (r *surveyRound) hinted() map[grid.PeerID][]int {
	member := map[grid.PeerID]bool{}
	for _, peer := range r.members {
		member[peer] = true
	}
	questions := map[grid.PeerID][]int{}
	for i := range r.surveys {
		for _, h := range r.surveys[i].Holders {
			if known := questions[h.Peer]; member[h.Peer] && (len(known) == 0 || known[len(known)-1] != i) {
				questions[h.Peer] = append(known, i)
			}
		}
	}
	return questions
}

// rest returns what every member has to be asked that was not asked yet.
func (r *surveyRound) rest() map[grid.PeerID][]int {
	questions := map[grid.PeerID][]int{}
	for i := range r.surveys {
		if r.accounted(i) && !r.asks[i].All {
			continue
		}
		for _, peer := range r.members {
			if !r.answered[i][peer] && !r.silent[peer] {
				questions[peer] = append(questions[peer], i)
			}
		}
	}
	return questions
}

// accounted reports whether somebody says to have each shard.
func (r *surveyRound) accounted(i int) bool {
	return r.asks[i].N > 0 && !slices.ContainsFunc(r.surveys[i].Shards, func(copies []Copy) bool {
		return !slices.ContainsFunc(copies, isStored)
	})
}

func isStored(c Copy) bool { return c.State == storage.ShardStored }

// ask puts the questions and takes in the answers.
func (r *surveyRound) ask(ctx context.Context, questions map[grid.PeerID][]int) error {
	peers := make([]grid.PeerID, 0, len(questions))
	for _, peer := range r.members { // in a stable order
		if len(questions[peer]) > 0 && !r.silent[peer] {
			peers = append(peers, peer)
		}
	}
	answers := askEach(ctx, r.s, peers, r.s.limitFor(r.s.cfg.AskTimeout),
		func(ctx context.Context, peer grid.PeerID, store storage.RemoteShards) ([]storage.SegmentAnswer, error) {
			ids := make([]storage.SegmentID, len(questions[peer]))
			for i, at := range questions[peer] {
				ids[i] = r.asks[at].ID
			}
			answers, err := store.Have(ctx, ids)
			if err != nil {
				return nil, err
			}
			return answers, checkAnswers(ids, answers)
		})
	for a := range answers {
		switch {
		case ctx.Err() != nil:
		case a.err != nil:
			r.silent[a.peer] = true
			r.s.peers.failed(a.peer, a.err, toGet)
			r.s.cfg.Logger.Debug("peer does not say what it has", "peer", a.peer, "err", a.err)
		default:
			for i, at := range questions[a.peer] {
				r.take(at, a.peer, a.answer[i])
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// checkAnswers returns nil for answers to exactly these questions, within their
// bounds.
func checkAnswers(ids []storage.SegmentID, answers []storage.SegmentAnswer) error {
	if len(answers) != len(ids) {
		return fmt.Errorf("%d answers to %d questions: %w", len(answers), len(ids), storage.ErrCorrupt)
	}
	for i, a := range answers {
		if a.Segment != ids[i] || len(a.Shards) > storage.MaxShards || len(a.Holders) > storage.MaxHolders {
			return fmt.Errorf("answered another question: %w", storage.ErrCorrupt)
		}
	}
	return nil
}

func (r *surveyRound) take(i int, peer grid.PeerID, answer storage.SegmentAnswer) {
	v := &r.surveys[i]
	r.answered[i][peer] = true
	for _, shard := range answer.Shards {
		v.Deleted = v.Deleted || shard.State == storage.ShardDeleted
		if shard.Index >= 0 && shard.Index < len(v.Shards) && shard.State != storage.ShardNone {
			v.Shards[shard.Index] = append(v.Shards[shard.Index], Copy{peer, shard.State})
		}
	}
	v.Holders = storage.MergeHolders(v.Holders, answer.Holders, len(v.Shards))
}

// conclude says what became of those who should hold the segment.
func (r *surveyRound) conclude(i int) {
	v := &r.surveys[i]
	v.All = true
	for _, peer := range r.members {
		v.All = v.All && r.answered[i][peer]
	}
	for _, h := range v.Holders {
		has := slices.ContainsFunc(v.Shards[h.Shard], func(c Copy) bool {
			return c.Peer == h.Peer && (c.State == storage.ShardStored || c.State == storage.ShardTrash)
		})
		switch {
		case has:
		case r.answered[i][h.Peer], !slices.Contains(r.members, h.Peer):
			v.Refused = append(v.Refused, h)
		case !r.silent[h.Peer] && slices.ContainsFunc(v.Shards[h.Shard], isStored):
			// named by another peer, and not asked because the shard is there
		default:
			v.Silent = append(v.Silent, h)
		}
	}
}
