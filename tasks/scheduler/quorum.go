package scheduler

import (
	"context"
	"errors"
	"fmt"
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
	ctx, cancel := context.WithTimeout(ctx, offerTimeout)
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
	fit, given := map[string]bool{}, map[string]bool{}
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
		if fit[a.candidate.Site] = true; len(fit) >= need {
			return nil
		}
	}
	slices.Sort(refused)
	text := fmt.Sprintf("%s needs %d distinct sites; of %s that give slots, %s this job", cfg.Verify, need,
		sites(len(given)), take(len(fit)))
	if len(refused) > 0 {
		more := ""
		if len(refused) > refusalsNamed {
			more = fmt.Sprintf("; and %d more", len(refused)-refusalsNamed)
		}
		text += ": " + strings.Join(refused[:min(len(refused), refusalsNamed)], "; ") + more
	}
	return fmt.Errorf("%w: %s", ErrTooFewSites, text)
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
