package segments

import (
	"slices"
	"time"
)

// While no transfer is done, nothing says how long one ought to take, and on a
// slow line starting more of them slows all of them down. So only standing
// still counts then, compared with the transfer's own rhythm, and one hedge is
// made every slowAlone for a transfer that crawls without ever standing still.
const (
	quietGet   = 3 // times HedgeMin without an answer
	quietPut   = 15
	quietAlive = 2  // times that, once anything came from the peer
	quietPause = 3  // times the longest pause of its transfers
	slowAlone  = 60 // times HedgeMin
)

// pace tells slow transfers of one segment from ordinary ones.
type pace struct {
	min     time.Duration // sooner nothing is slow
	factor  float64       // times the slowest that is done
	quiet   time.Duration // without a byte while none is done
	lull    time.Time     // when the next hedge is made although all move
	done    int
	slowest time.Duration
}

func (s *Segments) newPace(quiet int) pace {
	return pace{
		min: s.cfg.HedgeMin, factor: s.cfg.HedgeFactor, quiet: time.Duration(quiet) * s.cfg.HedgeMin,
		lull: time.Now().Add(slowAlone * s.cfg.HedgeMin),
	}
}

// add notes how long a transfer took that is done.
func (p *pace) add(took time.Duration) {
	p.done++
	p.slowest = max(p.slowest, took)
}

// overdueAt returns when the attempt will count as slow.
func (p *pace) overdueAt(a *attempt) time.Time {
	if p.done > 0 {
		return a.started.Add(max(p.min, time.Duration(p.factor*float64(p.slowest))))
	}
	if heard := a.lastHeard(); !heard.After(a.started) {
		return heard.Add(p.quiet)
	}
	return a.quiet(max(quietAlive*p.quiet, quietPause*time.Duration(a.rhythm.gap.Load())))
}

// nextEvent returns when one of the running attempts will count as slow.
func (p *pace) nextEvent(running []*attempt) (when time.Time) {
	if p.done == 0 && len(running) > 0 {
		when = p.lull
	}
	for _, a := range running {
		if !a.hedged {
			when = earliest(when, p.overdueAt(a))
		}
	}
	return when
}

// hedge marks the attempts that are slow by now, and returns those that were
// not slow before.
func (p *pace) hedge(running []*attempt, now time.Time) (slow []*attempt) {
	for _, a := range running {
		if !a.hedged && !now.Before(p.overdueAt(a)) {
			a.hedged = true
			slow = append(slow, a)
		}
	}
	if p.done > 0 || now.Before(p.lull) {
		return slow
	}
	p.lull = now.Add(slowAlone * p.min)
	sound := slices.DeleteFunc(slices.Clone(running), func(a *attempt) bool { return a.hedged })
	if len(sound) == 0 || len(slow) > 0 {
		return slow
	}
	last := slices.MinFunc(sound, func(a, b *attempt) int { return int(a.moved.Load() - b.moved.Load()) })
	last.hedged = true
	return []*attempt{last}
}
