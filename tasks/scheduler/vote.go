package scheduler

import (
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/tasks"
)

// Vote is what one peer says the result of a task is.
type Vote struct {
	Peer   grid.PeerID
	Site   string   // of the peer when it was claimed
	Result [32]byte // tasks.Result.Digest
	Engine string   // tasks.Result.Engine
	Proof  Proof    // the peer's signed word, with the result as it was sent
}

// Caught is a peer that gave a wrong result: others, on as many sites as the
// verification wants, agree on another. It gets no more tasks of the job.
type Caught struct {
	Task    int    // index
	Vote    Vote   // the wrong result
	Against []Vote // those who agree
	// Voided are the tasks of which a result of the peer was delivered that
	// nobody had checked. They run again and are delivered once more, with
	// Accepted.Replaces set. Results of the peer that others confirmed stand.
	Voided []int
}

// ballot is one result of a task that is not decided.
type ballot struct {
	vote     Vote
	measured bool      // tasks.Result.Measured
	result   *Accepted // nil: another ballot keeps the same, or it was delivered
}

func newBallot(c *claim, a *Accepted) ballot {
	return ballot{
		vote:     Vote{c.candidate.Peer, c.candidate.Site, a.digest, a.Engine, a.Proof},
		measured: a.Measured(),
		result:   a,
	}
}

// vote takes in one result of a task. It is kept until as many sites agree as
// the task needs.
func (l *ledger) vote(c *claim, e *entry, a *Accepted) {
	b := newBallot(c, a)
	if e.need == 0 { // it was begun anew while c still ran it
		e.need = l.judge.need(c.candidate.Peer)
	}
	if e.need == 1 && l.judge.checks(b) {
		e.need = checkedBy
	}
	if keeps(e.ballots, b.vote.Result) {
		a.discard()
		b.result = nil
	} else {
		l.occupy(a, 1)
	}
	e.ballots = append(e.ballots, b)
	l.tally(e)
}

// keeps reports whether a ballot keeps a result with this digest.
func keeps(ballots []ballot, digest [32]byte) bool {
	return slices.ContainsFunc(ballots, func(b ballot) bool { return b.result != nil && b.vote.Result == digest })
}

// tally decides e when enough sites agree, or when they no longer can.
func (l *ledger) tally(e *entry) {
	digest, agree := e.leading()
	switch {
	case agree >= e.need:
		l.accept(e, digest)
	case e.hopeless(l.judge.most()):
		l.disagree(e)
	default:
		l.requeue(e)
	}
}

// leading returns the result on which most ballots agree, the earlier of two,
// and how many do.
func (e *entry) leading() (digest [32]byte, agree int) {
	for _, b := range e.ballots {
		if n := e.agreeing(b.vote.Result); n > agree {
			digest, agree = b.vote.Result, n
		}
	}
	return digest, agree
}

// agreeing counts the ballots for a result.
func (e *entry) agreeing(result [32]byte) (n int) {
	for _, b := range e.ballots {
		if b.vote.Result == result {
			n++
		}
	}
	return n
}

// full reports whether as many sites of one engine as may be asked have e or gave a
// result. What a site that has it runs is not known yet: it counts with each.
func (e *entry) full(most int) bool {
	for _, b := range e.ballots {
		same := len(e.holders)
		for _, other := range e.ballots {
			if other.vote.Engine == b.vote.Engine {
				same++
			}
		}
		if same >= most {
			return true
		}
	}
	return len(e.holders) >= most
}

// hopeless reports whether so many sites of one engine gave different results that
// no more than most of them can bring the agreement. Engines may differ without a
// fault of anybody, so those of another count neither for this nor against.
func (e *entry) hopeless(most int) bool {
	for _, b := range e.ballots {
		same, agree := 0, 0
		for _, other := range e.ballots {
			if other.vote.Engine == b.vote.Engine {
				same++
				agree = max(agree, e.agreeing(other.vote.Result))
			}
		}
		if e.need-agree > most-same {
			return true
		}
	}
	return false
}

// wants returns how many more copies of e should be at workers now.
func (l *ledger) wants(e *entry) int {
	_, agree := e.leading()
	return max(0, max(e.need, 1)-agree-len(e.holders))
}

// accept settles e with the result that the leading ballots agree on.
func (l *ledger) accept(e *entry, digest [32]byte) {
	var a *Accepted
	var votes []Vote
	measured := false
	for _, b := range e.ballots {
		switch {
		case b.vote.Result != digest:
			continue
		case b.result != nil:
			a = b.result
			votes = slices.Insert(votes, 0, b.vote)
		default:
			votes = append(votes, b.vote)
		}
		measured = b.measured
	}
	a.Votes, a.Checked = votes, len(votes) >= checkedBy
	var wrong []Vote
	for _, b := range e.ballots {
		if b.vote.Result == digest {
			continue
		}
		l.free(b.result)
		if !b.measured && !measured && sameEngine(b.vote, votes) {
			wrong = append(wrong, b.vote)
		} else {
			l.judge.doubt(b.vote.Peer)
		}
	}
	if a.Checked {
		l.judge.confirm(votes)
	}
	a.Trust = l.judge.trustIn(e.ballots)
	a.Evidence = wrong
	if a.State != tasks.StateDone && l.mayTryAgain(e) {
		l.agreedFailure(e, a)
	} else {
		a.Attempts = e.attempts + len(e.ballots)
		e.winner, e.measured, e.ballots = votes, measured, nil
		l.settle(e, a)
		l.noteUnchecked(a)
	}
	for _, v := range wrong {
		l.catch(Caught{Task: e.index, Vote: v, Against: votes})
	}
}

// sameEngine reports whether one of those who agree ran the engine of v.
// Results are comparable within one engine only.
func sameEngine(v Vote, agree []Vote) bool {
	return slices.ContainsFunc(agree, func(a Vote) bool { return a.Engine == v.Engine })
}

// disagree settles e as failed: enough sites can no longer agree, so nobody
// knows who is right.
func (l *ledger) disagree(e *entry) {
	_, agree := e.leading()
	engines := map[string]bool{}
	for _, b := range e.ballots {
		engines[b.vote.Engine] = true
	}
	among := ""
	if len(engines) > 1 {
		among = fmt.Sprintf(" (they run %d different systems)", len(engines))
	}
	a := &Accepted{Result: l.impossible(e.index, fmt.Errorf(
		"peers disagree: %d sites ran it and at most %d gave the same result, %d must%s", len(e.ballots), agree, e.need, among))}
	for _, b := range e.ballots {
		a.Evidence = append(a.Evidence, b.vote)
		l.judge.doubt(b.vote.Peer)
		l.free(b.result)
	}
	a.Trust = l.judge.trustIn(e.ballots)
	a.Attempts = e.attempts + len(e.ballots)
	e.ballots = nil
	l.occupy(a, 1)
	l.settle(e, a)
}

// late takes in a result that came after its task was settled. It is no vote,
// but it may be evidence.
func (l *ledger) late(c *claim, e *entry, a *Accepted) {
	b := newBallot(c, a)
	if !l.judge.verify.Votes() || len(e.winner) == 0 || b.vote.Result == e.winner[0].Result || b.measured || e.measured || !sameEngine(b.vote, e.winner) {
		a.discard()
		return
	}
	if len(e.winner) >= checkedBy {
		a.discard()
		l.catch(Caught{Task: e.index, Vote: b.vote, Against: e.winner})
		return
	}
	l.dispute(e, b)
}

// free lets go of a result that is not needed.
func (l *ledger) free(a *Accepted) {
	if a != nil {
		l.occupy(a, -1)
		a.discard()
	}
}

// lostVotes says why a task of which some sites gave a result has none.
func (l *ledger) lostVotes(e *entry, why string) tasks.Result {
	if e.need > 1 {
		why = fmt.Sprintf("%d of the %d sites that must agree gave a result: %s", len(e.ballots), e.need, why)
	}
	return l.lost(e.index, why)
}
