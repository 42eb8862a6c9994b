package repair

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/shardrpc"
)

// Outcome is how a holder answered one challenge.
type Outcome string

// The outcomes of a challenge. Away and late say nothing about the data.
const (
	OutcomeSuccess Outcome = "success" // it proved, or delivered, what it said it has
	OutcomeWrong   Outcome = "wrong"   // what it delivered is not the shard
	OutcomeMissing Outcome = "missing" // it says that it has the shard and does not give it
	OutcomeAway    Outcome = "away"    // no connection
	OutcomeTimeout Outcome = "timeout" // connected, no answer in time
)

// outcomes in the order of their codes in the file of standings.
var outcomes = [...]Outcome{OutcomeSuccess, OutcomeWrong, OutcomeMissing, OutcomeAway, OutcomeTimeout}

// faulty says that the holder answered and was found out.
func (o Outcome) faulty() bool { return o == OutcomeWrong || o == OutcomeMissing }

// outcomeOf classifies the error of a challenge.
func outcomeOf(err error) Outcome {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return OutcomeSuccess
	case errors.Is(err, storage.ErrCorrupt):
		return OutcomeWrong
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrDenied), errors.Is(err, storage.ErrDeleted):
		return OutcomeMissing
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, segments.ErrTimeout), errors.Is(err, shardrpc.ErrStalled):
		return OutcomeTimeout
	}
	return OutcomeAway
}

// maxEvents bounds what is remembered of one peer; the oldest go first.
const maxEvents = 32

// Event is one challenge.
type Event struct {
	At      time.Time // second resolution
	Outcome Outcome
	Read    bool // by reading the shard, not by a proof
}

// Standing is what this peer has seen of another one. It is local: nobody else
// is told, and nobody is asked.
type Standing struct {
	Counts map[Outcome]uint64 // since the peer is known
	Events []Event            // newest last, at most maxEvents
}

// Grade sums a standing up.
type Grade string

// The grades, best first. A peer of which little is known is new, and treated
// as good.
const (
	GradeNew  Grade = "new"
	GradeGood Grade = "good"
	GradeFair Grade = "fair" // often does not answer in time
	GradePoor Grade = "poor" // was found out lately
	GradeBad  Grade = "bad"  // found out again and again: nothing that it says is believed
)

const (
	halfLife    = 7 * 24 * time.Hour // of an event's weight
	enoughToSay = 3                  // answers before a peer is no longer new
	badFaults   = 2.0                // weight of faults from which on a peer is bad,
	badShare    = 0.25               // if they are more than this share of its answers
	poorFaults  = 0.5
	lateShare   = 0.25
)

// Grade judges at a time. Faults weigh half after a week, and successes push
// them out, so that a donor who repaired the machine is trusted again. It is
// pure.
func (s Standing) Grade(now time.Time) Grade {
	good, faults, late := s.weights(now)
	switch {
	case faults >= badFaults && faults > badShare*(good+faults):
		return GradeBad
	case faults >= poorFaults:
		return GradePoor
	case len(s.Events) < enoughToSay:
		return GradeNew
	case late > lateShare*(good+late):
		return GradeFair
	}
	return GradeGood
}

// weights sums events up by how long ago they were. A peer that proves what it
// has but never ends a read has a fault each time: the data are of no use.
func (s Standing) weights(now time.Time) (good, faults, late float64) {
	delivers := slices.ContainsFunc(s.Events, func(e Event) bool { return e.Read && e.Outcome == OutcomeSuccess })
	proves := slices.ContainsFunc(s.Events, func(e Event) bool { return !e.Read && e.Outcome == OutcomeSuccess })
	for _, e := range s.Events {
		weight := math.Exp2(-max(0, now.Sub(e.At).Hours()) / halfLife.Hours())
		switch {
		case e.Outcome == OutcomeSuccess:
			good += weight
		case e.Outcome.faulty(), e.Read && e.Outcome == OutcomeTimeout && proves && !delivers:
			faults += weight
		case e.Outcome == OutcomeTimeout:
			late += weight
		}
	}
	return good, faults, late
}

// Weight returns by how much a grade lets a peer count as a place for shards.
func (g Grade) Weight() float64 {
	switch g {
	case GradeBad:
		return 0
	case GradePoor:
		return 0.1
	case GradeFair:
		return 0.5
	}
	return 1
}

// Explain says in words why a peer has its grade.
func (s Standing) Explain(now time.Time) string {
	if len(s.Events) == 0 {
		return "not challenged yet"
	}
	count := map[Outcome]int{}
	var lastFault Event
	for _, e := range s.Events {
		count[e.Outcome]++
		if e.Outcome.faulty() {
			lastFault = e
		}
	}
	var parts []string
	for _, o := range outcomes {
		if count[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[o], o))
		}
	}
	text := fmt.Sprintf("of the last %d challenges %s", len(s.Events), strings.Join(parts, ", "))
	if !lastFault.At.IsZero() {
		how := "proof"
		if lastFault.Read {
			how = "read"
		}
		text += fmt.Sprintf("; the last fault was a %s %s ago", how, ageOf(now.Sub(lastFault.At)))
	}
	return text
}

// ageOf is a duration as people say it.
func ageOf(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "a moment"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// note adds a challenge.
func (s *Standing) note(e Event) {
	if s.Counts == nil {
		s.Counts = map[Outcome]uint64{}
	}
	s.Counts[e.Outcome]++
	e.At = time.Unix(e.At.Unix(), 0)
	if len(s.Events) >= maxEvents {
		s.Events = append(s.Events[:0], s.Events[len(s.Events)-maxEvents+1:]...)
	}
	s.Events = append(s.Events, e)
}

// Detection returns the probability that a holder that lost or dropped a share
// of its data is found within a number of challenged pieces, each chosen at
// random: 1 − (1 − share)^challenges.
func Detection(share float64, challenges int) float64 {
	return 1 - math.Pow(1-min(max(share, 0), 1), float64(max(challenges, 0)))
}

// Report is what is known of one peer, for people.
type Report struct {
	Peer   grid.PeerID
	Grade  Grade
	Why    string
	Counts map[Outcome]uint64
	// Detects is the probability with which the challenges of the last 30 days
	// would have found a peer that dropped a tenth of what it holds.
	Detects float64
}

// reportShare and reportPeriod are what Report.Detects assumes.
const (
	reportShare  = 0.1
	reportPeriod = 30 * 24 * time.Hour
)

func (s Standing) report(peer grid.PeerID, now time.Time) Report {
	recent := 0
	for _, e := range s.Events {
		if now.Sub(e.At) < reportPeriod && (e.Outcome == OutcomeSuccess || e.Outcome.faulty()) {
			recent++
		}
	}
	counts := make(map[Outcome]uint64, len(s.Counts))
	for o, n := range s.Counts {
		counts[o] = n
	}
	return Report{Peer: peer, Grade: s.Grade(now), Why: s.Explain(now), Counts: counts, Detects: Detection(reportShare, recent)}
}
