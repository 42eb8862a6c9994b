package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"gotong/grid"
)

// unfitAt takes in that the worker of c cannot run e, though it runs others of the
// job. That is no attempt, and the worker gets it no more.
func (l *ledger) unfitAt(c *claim, e *entry, why string) {
	if e.accepted {
		return
	}
	l.unfit = true
	if !e.unfitFor(c.candidate.Peer) {
		e.unfit = append(e.unfit, Refusal{c.candidate.Peer, why})
	}
	l.requeue(e)
	l.wakeAll()
}

func (e *entry) unfitFor(peer grid.PeerID) bool {
	return slices.ContainsFunc(e.unfit, func(r Refusal) bool { return r.Peer == peer })
}

// loseUnfit ends the tasks that none of the peers can run which may run others, as
// lost.
func (l *ledger) loseUnfit(able []Candidate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.unfit || len(able) == 0 {
		return
	}
	var hopeless []*entry
	for _, e := range l.active {
		if len(e.unfit) > 0 && !e.accepted && len(e.holders) == 0 && !slices.ContainsFunc(able, e.mayGoTo) {
			hopeless = append(hopeless, e)
		}
	}
	slices.SortFunc(hopeless, func(a, b *entry) int { return a.index - b.index })
	for _, e := range hopeless {
		if e.accepted { // the one before ended the job
			continue
		}
		var lines []string
		for _, r := range e.unfit[:min(len(e.unfit), refusalsNamed)] {
			lines = append(lines, fmt.Sprintf("%s: %s", r.Peer.Short(), r.Why))
		}
		if more := len(e.unfit) - len(lines); more > 0 {
			lines = append(lines, fmt.Sprintf("and %d more", more))
		}
		l.sum.Unfit++
		l.lose(e, "no peer can run it: "+strings.Join(lines, "; "))
	}
}

// mayGoTo reports whether a peer has neither said that it cannot run e nor given a
// result of it.
func (e *entry) mayGoTo(c Candidate) bool {
	return !e.unfitFor(c.Peer) && !slices.ContainsFunc(e.ballots, func(b ballot) bool { return b.vote.Peer == c.Peer || b.vote.Site == c.Site })
}
