package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// How workers are looked for.
const (
	// tickEvery is how often the need for workers is looked at when nothing
	// happens.
	tickEvery = 250 * time.Millisecond
	// waitingAfter is how long no worker gets the job on before Config.Waiting
	// hears of it.
	waitingAfter = 5 * time.Second
	// unfitWait is how long a run goes on when no peer that is there can run it.
	unfitWait = 5 * time.Second
	// attemptsAtOnce is how many pairs of candidates are compared at once.
	attemptsAtOnce = 16
	// offerTimeout is how long a candidate may take to answer; offerGrace how
	// long a good answer waits for the other candidate's.
	offerTimeout = 3 * time.Second
	offerGrace   = 200 * time.Millisecond
	// claimGrace is how long no other peer is looked for in the place of one that
	// is being claimed.
	claimGrace = 200 * time.Millisecond
	// contentIdle is how long a worker may take nothing of a content.
	contentIdle = 30 * time.Second

	// How long a peer is left alone after it was busy, refused, or failed; the
	// last doubles from retryFirst to retryMost until a claim held for
	// steadyAfter.
	retryBusy    = 2 * time.Second
	retryRefused = 10 * time.Second
	retryFirst   = time.Second
	retryMost    = 30 * time.Second
	steadyAfter  = time.Minute
	// retryDoublings keeps the doubling from overflowing.
	retryDoublings = 10
	// claimFailures claims in a row that were granted and brought no result bar
	// a peer from the job; so does one that breaks the protocol. A peer that
	// cannot be reached may be starting again and is tried again and again.
	claimFailures = 5
	// refusalsNamed is how many reasons an error has, and how many peers with the
	// same reason it names.
	refusalsNamed = 4
)

// matchmaker keeps as many workers claimed as the job can use.
type matchmaker struct {
	cfg     Config
	ledger  *ledger
	stage   *stage
	logger  *slog.Logger
	rng     *rand.Rand    // used by run alone
	changed chan struct{} // 1 token: an attempt or a claim ended
	wg      sync.WaitGroup

	mu       sync.Mutex
	peers    map[grid.PeerID]*standing
	attempts int // comparing or claiming now
	claims   int
}

// standing is what this run knows of a peer.
type standing struct {
	engaged  bool // being compared or claimed
	failures int  // claims in a row without a result
	falls    int  // failures in a row without a steady claim
	until    time.Time
	barred   bool
	unfit    bool   // it cannot run the job at any time
	push     bool   // hand it what it should fetch: it could not
	why      string // of the last refusal or failure
}

func newMatchmaker(cfg Config, l *ledger, st *stage) *matchmaker {
	return &matchmaker{
		cfg: cfg, ledger: l, stage: st, logger: cfg.Logger, rng: cfg.Rand,
		changed: make(chan struct{}, 1),
		peers:   map[grid.PeerID]*standing{},
	}
}

// run works until ctx ends and every claim with it.
func (m *matchmaker) run(ctx context.Context) {
	defer m.wg.Wait()
	if m.cfg.Reclaim {
		m.reclaim(ctx)
	}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	helped := time.Now() // when claims last got the job on, or there was no need of any
	fit := helped        // when a peer was there that may be able to run it
	for {
		now := time.Now()
		m.ledger.tick(now)
		wanted := m.ledger.wanted(now)
		m.match(ctx, wanted, now)
		if wanted == 0 || m.ledger.advancing() {
			helped = now
		}
		able, unfit := m.able()
		if m.ledger.loseUnfit(able); !unfit || m.cfg.Patient {
			fit = now
		}
		switch {
		case now.Sub(helped) >= m.cfg.WorkerWait:
			m.ledger.giveUp(m.reason(fmt.Sprintf("no peer took it for %s", m.cfg.WorkerWait)))
		case now.Sub(fit) >= unfitWait:
			m.ledger.giveUp(m.reason("no peer that is there can run it"))
		case now.Sub(helped) >= waitingAfter && m.cfg.Waiting != nil:
			m.cfg.Waiting(m.refusals())
		}
		if m.cfg.Progress != nil {
			m.cfg.Progress(m.ledger.progress())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-m.changed:
		}
	}
}

// match starts attempts for the slots that are wanted.
func (m *matchmaker) match(ctx context.Context, wanted int, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wanted <= m.attempts {
		return
	}
	free, sample := m.free(now), m.ledger.job.sample()
	for m.attempts < min(wanted, attemptsAtOnce) && m.attempts+m.claims < m.cfg.Peers && len(free) > 0 {
		pair := free[:min(sample, len(free))]
		free = free[len(pair):]
		for _, candidate := range pair {
			m.standing(candidate.Peer).engaged = true
		}
		m.attempts++
		m.wg.Go(func() { m.attempt(ctx, pair) })
	}
}

// free returns the candidates that may be tried now, shuffled.
func (m *matchmaker) free(now time.Time) []Candidate {
	candidates := slices.DeleteFunc(slices.Clone(m.cfg.Pool.Candidates()), func(c Candidate) bool {
		s := m.standing(c.Peer)
		return s.engaged || s.barred || now.Before(s.until) || m.ledger.isCaught(c.Peer)
	})
	m.rng.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	if m.cfg.Verify.Votes() {
		sites := m.ledger.claimedSites()
		slices.SortStableFunc(candidates, func(a, b Candidate) int {
			return cmp.Compare(rank(sites, a), rank(sites, b))
		})
	}
	return candidates
}

// able returns the candidates that may run tasks now or later, and whether there
// are candidates and none of them may.
func (m *matchmaker) able() (list []Candidate, none bool) {
	candidates := m.cfg.Pool.Candidates()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range candidates {
		if s := m.standing(c.Peer); !s.unfit && !s.barred {
			list = append(list, c)
		}
	}
	return list, len(list) == 0 && slices.ContainsFunc(candidates, func(c Candidate) bool { return m.standing(c.Peer).unfit })
}

// rank puts candidates on sites where nobody works yet before the others.
func rank(sites map[string]bool, c Candidate) int {
	if sites[c.Site] {
		return 1
	}
	return 0
}

func (m *matchmaker) standing(peer grid.PeerID) *standing {
	s := m.peers[peer]
	if s == nil {
		s = &standing{}
		m.peers[peer] = s
	}
	return s
}

// attempt compares candidates and works with the better one.
func (m *matchmaker) attempt(ctx context.Context, pair []Candidate) {
	best, ok := m.compare(ctx, pair)
	if ctx.Err() != nil || !ok {
		m.attemptOver(0)
		return
	}
	m.letGo(best.candidate.Peer, unlessOver(ctx, m.work(ctx, best, func() {})))
}

// work claims a candidate, for which an attempt is counted, and works with it until
// the claim ends. It returns why. joined is called once the claim is granted.
func (m *matchmaker) work(ctx context.Context, best answer, joined func()) error {
	push := m.pushes(best.candidate.Peer)
	if err := m.supply(ctx, best, push); err != nil {
		m.attemptOver(0)
		return err
	}
	opened := sync.OnceFunc(func() { m.attemptOver(1) })
	late := time.AfterFunc(claimGrace, opened)
	defer late.Stop()
	c := newClaim(best.candidate, best.worker, m.ledger, m.cfg.Contents, m.stage, m.logger)
	c.pushed, c.held = push, m.cfg.Held
	c.joined = func() {
		opened()
		joined()
	}
	start := time.Now()
	why := c.run(ctx)
	opened()
	m.claimOver(c, time.Since(start))
	return why
}

func (m *matchmaker) pushes(peer grid.PeerID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.standing(peer).push
}

// claimOver notes what a claim was worth.
func (m *matchmaker) claimOver(c *claim, held time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims--
	s := m.standing(c.candidate.Peer)
	switch {
	case c.accepted > 0:
		s.failures, s.why = 0, ""
	case c.slots > 0: // it was granted
		s.failures++
	}
	s.push = s.push || c.unfetched
	if held >= steadyAfter {
		s.falls = 0
	}
}

// unlessOver returns err, or nil when the run is over and err came of that.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (m *matchmaker) attemptOver(claims int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attempts--
	m.claims += claims
	m.nudge()
}

func (m *matchmaker) nudge() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// letGo lets a peer go and decides when it may be tried again.
func (m *matchmaker) letGo(peer grid.PeerID, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.nudge()
	s, now := m.standing(peer), time.Now()
	s.engaged, s.unfit = false, errors.Is(why, tasks.ErrUnfit)
	switch {
	case why == nil || errors.Is(why, errFinished):
		return
	case errors.Is(why, tasks.ErrBusy):
		s.until = now.Add(retryBusy)
	case errors.Is(why, tasks.ErrRefused) || errors.Is(why, tasks.ErrSandbox) || errors.Is(why, errClosing):
		s.until = now.Add(retryRefused)
	default:
		s.until = now.Add(min(retryMost, retryFirst<<min(s.falls, retryDoublings)))
		s.falls++
		s.barred = s.failures >= claimFailures || errors.Is(why, ErrViolation)
		m.logger.Warn("worker failed", "peer", peer, "failures", s.falls, "barred", s.barred, "err", why)
	}
	s.why = tasks.Reason(why)
}

// refusals lists why peers took no tasks, by peer.
func (m *matchmaker) refusals() []Refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Refusal
	for peer, s := range m.peers {
		if s.why != "" {
			list = append(list, Refusal{peer, s.why})
		}
	}
	slices.SortFunc(list, func(a, b Refusal) int { return a.Peer.Compare(b.Peer) })
	return list
}

// reason says why the job has no worker, and that what is so.
func (m *matchmaker) reason(what string) string {
	list := m.refusals()
	if len(list) == 0 {
		return "no peer gives slots for tasks"
	}
	name := m.cfg.Name
	if name == nil {
		name = grid.PeerID.Short
	}
	return what + ": " + Words(list, name)
}

// Words says who refuses and why: peers with the same reason together, and not more
// than fit into an error.
func Words(refusals []Refusal, name func(grid.PeerID) string) string {
	var whys []string
	peers := map[string][]string{}
	for _, r := range refusals {
		if peers[r.Why] == nil {
			whys = append(whys, r.Why)
		}
		peers[r.Why] = append(peers[r.Why], name(r.Peer))
	}
	var lines []string
	left := len(refusals)
	for _, why := range whys[:min(len(whys), refusalsNamed)] {
		who := peers[why]
		left -= len(who)
		names := strings.Join(who[:min(len(who), refusalsNamed)], ", ")
		if more := len(who) - refusalsNamed; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		lines = append(lines, names+": "+why)
	}
	if left > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", left))
	}
	return strings.Join(lines, "; ")
}
