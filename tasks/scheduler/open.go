package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// openTasks are undecided tasks that want a copy on a site that has none of
// them, by the sites that have. So a claim finds a task for it at once, however
// many wait for other sites.
type openTasks struct {
	sets  map[string]*openSet
	count int // of tasks that are open
}

// openSet is the open tasks that the same sites have, about in their order.
type openSet struct {
	sites []string
	queue []openEntry
}

// openEntry is a place in a queue. It is stale when the entry moved on.
type openEntry struct {
	*entry
	place int // entry.place when it was queued
}

func (o openEntry) stale() bool { return o.place != o.entry.place }

// add queues e, which closes its former place.
func (o *openTasks) add(e *entry) {
	o.close(e)
	sites := e.sites()
	key := strings.Join(sites, "\x00")
	set := o.sets[key]
	if set == nil {
		set = &openSet{sites: sites}
		o.sets[key] = set
	}
	e.open = true
	set.queue = append(set.queue, openEntry{e, e.place})
	o.count++
}

// close takes e out, if it is in.
func (o *openTasks) close(e *entry) {
	if e.open {
		e.open = false
		e.place++
		o.count--
	}
}

// first returns the first open task that may runs, nil for none. It stays in.
func (o *openTasks) first(c *claim, may func(*entry) bool) *entry {
	var best *entry
	for key, set := range o.sets {
		for len(set.queue) > 0 && set.queue[0].stale() {
			set.queue[0] = openEntry{}
			set.queue = set.queue[1:]
		}
		if len(set.queue) == 0 {
			delete(o.sets, key)
			continue
		}
		if slices.Contains(set.sites, c.candidate.Site) {
			continue
		}
		for _, q := range set.queue {
			if !q.stale() && may(q.entry) {
				if best == nil || q.index < best.index {
					best = q.entry
				}
				break
			}
		}
	}
	return best
}

// sites returns the sites that have a copy or gave a result of e, sorted.
func (e *entry) sites() []string {
	var sites []string
	for _, b := range e.ballots {
		sites = append(sites, b.vote.Site)
	}
	for _, h := range e.holders {
		sites = append(sites, h.candidate.Site)
	}
	slices.Sort(sites)
	return slices.Compact(sites)
}

// mayVote reports whether c may run a copy of e: no site and no peer has two.
func (l *ledger) mayVote(e *entry, c *claim) bool {
	if c.out[e.index] != nil || e.unfitFor(c.candidate.Peer) {
		return false
	}
	if !l.judge.verify.Votes() {
		return true
	}
	same := func(v Candidate) bool { return v.Peer == c.candidate.Peer || v.Site == c.candidate.Site }
	for _, b := range e.ballots {
		if same(Candidate{Peer: b.vote.Peer, Site: b.vote.Site}) {
			return false
		}
	}
	return !slices.ContainsFunc(e.holders, func(h *claim) bool { return same(h.candidate) })
}

// requeue queues e for as many further copies as it wants. One that has had its
// attempts gets none, and is lost when the last copy of it brought no decision.
func (l *ledger) requeue(e *entry) {
	l.open.close(e)
	switch {
	case e.accepted || l.wants(e) == 0:
		return
	case e.attempts >= MaxAttempts:
		l.unqueue(e)
		if len(e.holders) == 0 {
			l.lose(e, fmt.Sprintf("given up after %d attempts; the last on %s", e.attempts, e.why))
		}
		return
	case e.inRetry:
		return
	}
	if len(e.avoid) == 0 && len(e.ballots)+len(e.holders) > 0 {
		l.open.add(e)
		l.wakeStarved()
		return
	}
	e.queued, e.inRetry = time.Now(), true
	i, _ := slices.BinarySearchFunc(l.retry, e.index, func(r *entry, index int) int { return r.index - index })
	l.retry = slices.Insert(l.retry, i, e)
}

// unqueue takes e out of both queues.
func (l *ledger) unqueue(e *entry) {
	l.open.close(e)
	if e.inRetry {
		e.inRetry = false
		l.retry = slices.DeleteFunc(l.retry, func(r *entry) bool { return r == e })
	}
}

// wantedVotes returns how many slots on further sites the open tasks could use.
func (l *ledger) wantedVotes() int {
	most := 0
	for _, set := range l.open.sets {
		n := 0
		for _, q := range set.queue {
			if !q.stale() {
				n++
			}
		}
		for c := range l.claims {
			if c.closing == "" && !slices.Contains(set.sites, c.candidate.Site) {
				n -= max(0, c.slots-len(c.out))
			}
		}
		most = max(most, n)
	}
	return most
}

// claimedSites returns the sites on which a worker is claimed.
func (l *ledger) claimedSites() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	sites := map[string]bool{}
	for c := range l.claims {
		sites[c.candidate.Site] = true
	}
	return sites
}

// advancing reports whether the claims that are open get the job on: not when
// all that is left waits for sites on which there is none.
func (l *ledger) advancing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.claims) == 0 {
		return false
	}
	if (!l.judge.verify.Votes() && !l.unfit) || l.copies > 0 || l.inHand || len(l.ready)+len(l.revised) > 0 || l.open.count+len(l.retry) == 0 {
		return true
	}
	l.skipKnown()
	for c := range l.claims {
		if c.closing != "" {
			continue
		}
		if l.unseen() > 0 && l.fits(l.next) {
			return true
		}
		may := func(e *entry) bool { return l.mayVote(e, c) }
		if l.open.first(c, may) != nil || slices.ContainsFunc(l.retry, may) {
			return true
		}
	}
	return false
}
