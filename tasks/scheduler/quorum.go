package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gotong/tasks"
)

// ErrTooFewSites says that results cannot be checked: too few distinct sites
// give slots that the job can use.
var ErrTooFewSites = errors.New("too few sites to check results")

// sitesNeeded returns how many distinct sites a job needs to begin.
func sitesNeeded(v tasks.Verify) int {
	switch v.Mode {
	case tasks.VerifyQuorum:
		return v.Need
	case tasks.VerifyAdaptive:
		return checkedBy
	}
	return 1
}

// CheckSites returns an error that wraps ErrTooFewSites when the candidates of
// the pool cannot give the job the sites that its verification needs, with the
// reason in words. It asks the candidates, which takes seconds at most; one
// that is busy counts.
func CheckSites(ctx context.Context, job Job, cfg Config) error {
	need := sitesNeeded(cfg.Verify)
	if need <= 1 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, job.offerTimeout())
	defer cancel()
	candidates := cfg.Pool.Candidates()
	answers := make(chan answer, len(candidates))
	asking := make(chan struct{}, attemptsAtOnce)
	for _, c := range candidates {
		go func() {
			asking <- struct{}{}
			answers <- ask(ctx, cfg.Pool, job.Header, c)
			<-asking
		}()
	}
	fit, given := map[string]map[string]bool{}, map[string]bool{} // sites that take it, by engine
	var refused []string
	for _, c := range candidates {
		given[c.Site] = true
	}
	for range candidates {
		a := <-answers
		if a.err != nil && !errors.Is(a.err, tasks.ErrBusy) {
			refused = append(refused, a.candidate.Peer.Short()+": "+tasks.Reason(a.err))
			continue
		}
		engine := job.comparable(a.offer)
		if fit[engine] == nil {
			fit[engine] = map[string]bool{}
		}
		fit[engine][a.candidate.Site] = true
		if mostSites(fit) >= need {
			return nil
		}
	}
	slices.Sort(refused)
	text := fmt.Sprintf("%s needs %d distinct sites; of %s that give slots, %s this job", cfg.Verify, need,
		sites(len(given)), take(mostSites(fit)))
	delete(fit, "")
	if len(fit) > 1 {
		text += fmt.Sprintf(" on one system (they run %s, whose results cannot be compared)", strings.Join(slices.Sorted(maps.Keys(fit)), ", "))
	}
	if len(refused) > 0 {
		more := ""
		if len(refused) > refusalsNamed {
			more = fmt.Sprintf("; and %d more", len(refused)-refusalsNamed)
		}
		text += ": " + strings.Join(refused[:min(len(refused), refusalsNamed)], "; ") + more
	}
	return fmt.Errorf("%w: %s", ErrTooFewSites, text)
}

// comparable names with what other results those of an offer can be compared: of a
// module with all, of a native command with those of the same engine. It is empty
// when that is not known, as of a peer that is busy.
func (h Header) comparable(o Offer) string {
	if h.Runtime != tasks.RuntimeNative {
		return ""
	}
	return o.Engine
}

// mostSites returns on how many sites results could be compared, at most: those of
// one engine, and those of which none is known.
func mostSites(fit map[string]map[string]bool) int {
	most := len(fit[""])
	for _, own := range fit {
		n := len(own)
		for site := range fit[""] {
			if !own[site] {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func sites(n int) string {
	if n == 1 {
		return "1 site"
	}
	return fmt.Sprintf("%d sites", n)
}

func take(n int) string {
	if n == 1 {
		return "1 takes"
	}
	return fmt.Sprintf("%d take", n)
}
