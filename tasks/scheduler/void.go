package scheduler

import (
	"fmt"
	"slices"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// uncheckedMost bounds, for each peer, the results that nobody checked and that
// are voided when it is caught: the latest. A peer that lies in one of twenty
// passes the checks of so many with a probability below 10⁻⁷⁰.
const uncheckedMost = 1 << 16

// errLied ends the claims of a peer that was caught.
var errLied = fmt.Errorf("%w: it gave a wrong result", ErrViolation)

// unchecked is an accepted result that nobody checked.
type unchecked struct {
	index  int
	state  tasks.State
	digest [32]byte
}

// noteUnchecked remembers a result that would be voided with its peer.
func (l *ledger) noteUnchecked(a *Accepted) {
	if !l.judge.adaptive() || a.Checked || a.FromCache || a.Peer.IsZero() || !a.State.Final() {
		return
	}
	u := unchecked{index: a.Task.Index, state: a.State}
	if len(a.Votes) > 0 {
		u.digest = a.Votes[0].Result
	} else {
		u.digest = a.Digest()
	}
	list := append(l.unchecked[a.Peer], u)
	if len(list) > 2*uncheckedMost {
		list = slices.Clone(list[len(list)-uncheckedMost:])
	}
	l.unchecked[a.Peer] = list
}

// isCaught reports whether peer was caught in this job.
func (l *ledger) isCaught(peer grid.PeerID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.judge.caught[peer]
}

// catch voids what a peer said that nobody confirmed, and ends its claims.
func (l *ledger) catch(found Caught) {
	peer := found.Vote.Peer
	if l.judge.caught[peer] {
		return
	}
	l.judge.caught[peer] = true
	l.judge.doubt(peer)
	l.sum.Caught++
	for c := range l.claims {
		if c.candidate.Peer == peer {
			c.end(errLied)
		}
	}
	for _, e := range l.active {
		if !e.accepted && e.strike(l, peer) {
			l.requeue(e)
		}
	}
	found.Voided = l.voidUnchecked(peer)
	l.caught = append(l.caught, found)
	l.signal()
	l.wakeAll()
}

// strike takes the ballot of a peer away, and those that rely on the result
// that it kept. It reports whether there was one.
func (e *entry) strike(l *ledger, peer grid.PeerID) bool {
	i := slices.IndexFunc(e.ballots, func(b ballot) bool { return b.vote.Peer == peer })
	if i < 0 {
		return false
	}
	struck := e.ballots[i]
	e.ballots = slices.DeleteFunc(e.ballots, func(b ballot) bool {
		return b.vote.Peer == peer || (struck.result != nil && b.vote.Result == struck.vote.Result)
	})
	l.free(struck.result)
	return true
}

// voidUnchecked takes back the results of peer that nobody checked, and returns
// those that were delivered already. All of them run again.
func (l *ledger) voidUnchecked(peer grid.PeerID) (delivered []int) {
	list := l.unchecked[peer]
	delete(l.unchecked, peer)
	list = list[max(0, len(list)-uncheckedMost):]
	indexes := make(map[int]bool, len(list))
	for _, u := range list {
		indexes[u.index] = true
	}
	back := l.withdraw(indexes)
	for _, u := range list {
		e := l.reopen(u.index)
		l.count(u.state, -1)
		if a := back[u.index]; a != nil {
			l.free(a)
			e.replaces, e.revises = a.Replaces, a.revises
			if a.known {
				e.replaces = u.digest
			}
		} else {
			l.replace(e, u.digest)
			delivered = append(delivered, u.index)
		}
		l.sum.Voided++
		e.avoid = nil
		l.retry = append(l.retry, e) // sorted below, once for all
		e.inRetry, e.queued = true, time.Now()
	}
	slices.SortFunc(l.retry, func(a, b *entry) int { return a.index - b.index })
	return delivered
}

// reopen returns the entry of an accepted task, undecided again.
func (l *ledger) reopen(index int) *entry {
	e := l.active[index]
	if e == nil {
		e = &entry{index: index}
		l.active[index] = e
	}
	e.accepted, e.need, e.winner, e.measured = false, 0, nil, false
	return e
}

// replace notes that e was delivered with a result that no longer counts.
func (l *ledger) replace(e *entry, digest [32]byte) {
	e.replaces, e.revises = digest, true
	l.revising++
}

// dispute reopens a task whose accepted result nobody had checked when another
// site gave a different one: a third decides.
func (l *ledger) dispute(e *entry, late ballot) {
	first := e.winner[0]
	l.unchecked[first.Peer] = slices.DeleteFunc(l.unchecked[first.Peer], func(u unchecked) bool { return u.index == e.index })
	a := l.withdraw(map[int]bool{e.index: true})[e.index]
	l.count(e.state, -1)
	l.reopen(e.index)
	if a != nil {
		e.replaces, e.revises = a.Replaces, a.revises
	} else {
		l.replace(e, first.Result)
	}
	l.occupy(late.result, 1)
	e.need = checkedBy
	e.ballots = []ballot{{vote: first, result: a}, late}
	l.tally(e)
}

// withdraw takes results back that were accepted and not delivered. What it
// does not return was delivered.
func (l *ledger) withdraw(indexes map[int]bool) map[int]*Accepted {
	back := map[int]*Accepted{}
	take := func(a *Accepted) bool {
		if indexes[a.Task.Index] {
			back[a.Task.Index] = a
		}
		return indexes[a.Task.Index]
	}
	l.revised = slices.DeleteFunc(l.revised, take)
	if l.ordered {
		// In the order of tasks: everything from the first of them on waits.
		l.low -= len(l.ready)
		for _, a := range l.ready {
			l.waiting[a.Task.Index] = a
		}
		l.ready = nil
		for index := range indexes {
			if a := l.waiting[index]; a != nil {
				back[index] = a
				delete(l.waiting, index)
			}
		}
		l.line()
		return back
	}
	l.ready = slices.DeleteFunc(l.ready, take)
	return back
}
