package repair

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"gotong/grid"
	"gotong/storage"
)

const (
	// firstRound is when a Repairer that was started looks for the first time:
	// peers that start together have found each other by then.
	firstRound = time.Minute
	// firstLook is how often it looks until then whether somebody is here.
	firstLook = time.Second
	// maxOpen bounds the damaged segments that are remembered between rounds.
	maxOpen = 16384
	// maxSuspects bounds those that are looked at in the next round first.
	maxSuspects = RoundSegments
)

// Repairer keeps segments healthy. It is safe for concurrent use.
type Repairer struct {
	live    atomic.Pointer[Config] // see cfg
	memory  *memory
	budget  budget
	started time.Time
	kick    chan struct{} // a round is due now
	doubts  chan place    // reads that failed
	rounds  chan struct{} // held by whoever runs a round or hands shards over
	hasty   atomic.Int32  // who waits for a round to end early
	wide    bool          // this sweep asks every member; of whoever holds rounds
	widened time.Time     // when the last one that did ended
	// regained says that somebody who had been given up is back since.
	regained bool

	mu       sync.Mutex
	cursor   storage.SegmentID
	open     map[storage.SegmentID]*damage
	suspects map[storage.SegmentID]bool
	returns  uint64
	absent   map[storage.SegmentID]bool // own ones with holders that were away when last looked at
	synced   map[storage.VaultID]bool   // missed deletions were fetched since the start
	gone     map[grid.PeerID]bool       // whose shards count as lost, as of the last round
	claims   *claims
	total    Totals
	shedding DrainProgress
}

// damage is a segment that is not healthy.
type damage struct {
	since  time.Time // first seen
	margin int
	lost   int // shards
	waits  bool
	tries  int
	next   time.Time // not tried again before
	why    string
}

// Totals counts what was done since the start.
type Totals struct {
	Rounds  int
	Rebuilt int // shards
	Moved   int // shards
	Bytes   int64
	Freed   int64 // of trash and of removed owners
	Last    time.Time
}

// New returns a Repairer; it starts nothing. A file of what it remembers that
// cannot be read is reported and begins anew.
func New(cfg Config) (*Repairer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.filled()
	m, err := openMemory(cfg.Path)
	if err != nil {
		cfg.Logger.Warn("what was known of other peers' audits is lost", "err", err)
	}
	now := time.Now()
	r := &Repairer{
		memory: m, budget: budget{rate: cfg.Rate}, started: now, wide: true,
		kick: make(chan struct{}, 1), doubts: make(chan place, maxDoubts), rounds: make(chan struct{}, 1),
		open: map[storage.SegmentID]*damage{}, suspects: map[storage.SegmentID]bool{}, absent: map[storage.SegmentID]bool{},
		synced: map[storage.VaultID]bool{}, gone: map[grid.PeerID]bool{}, claims: newClaims(),
	}
	r.live.Store(&cfg)
	return r, nil
}

// cfg is what holds now; it is not to be changed.
func (r *Repairer) cfg() *Config { return r.live.Load() }

// Timing is the part of a Config that may change while a Repairer runs.
type Timing struct {
	Grace, Interval, Audits, Scrub, Retention time.Duration
	Rate                                      int64
	Groups                                    int
}

// SetTiming changes them; zero values mean their defaults. What waits for a time
// by the old ones is not hurried, but for the rounds.
func (r *Repairer) SetTiming(t Timing) {
	c := *r.cfg()
	c.Grace, c.Interval, c.Audits, c.Scrub, c.Retention = t.Grace, t.Interval, t.Audits, t.Scrub, t.Retention
	c.Rate, c.Groups = t.Rate, t.Groups
	c = c.filled()
	r.live.Store(&c)
	r.budget.set(c.Rate)
	r.Soon()
}

// Run repairs, audits and scrubs until ctx ends.
func (r *Repairer) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	for _, loop := range []func(context.Context){r.repairs, r.audits, r.scrubs} {
		loops.Go(func() { loop(ctx) })
	}
	loops.Wait()
	return r.memory.save()
}

// repairs runs rounds.
func (r *Repairer) repairs(ctx context.Context) {
	r.catchUp(ctx)
	timer := time.NewTimer(min(r.cfg().Interval, firstRound))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.kick:
		}
		if _, err := r.Round(ctx); err != nil && ctx.Err() == nil {
			r.cfg().Logger.Warn("a round of repair ended early", "err", err)
		}
		if err := r.memory.save(); err != nil {
			r.cfg().Logger.Warn("what is known of other peers is not saved", "err", err)
		}
		// Not all peers at the same moment.
		timer.Reset(r.cfg().Interval*9/10 + time.Duration(rand.Int64N(int64(r.cfg().Interval)/5+1)))
	}
}

// Soon lets the next round begin at once.
func (r *Repairer) Soon() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Returned tells that a peer is back: what waits for a place is tried again at
// once, and own segments that had holders away are looked at, so that the vault
// knows that they are safer now; if there is anything.
func (r *Repairer) Returned() {
	r.mu.Lock()
	r.returns++
	r.mu.Unlock()
	r.again()
}

// again has everything looked at that somebody who is back may help with.
func (r *Repairer) again() {
	r.mu.Lock()
	waiting := len(r.open) > 0 || len(r.absent) > 0
	for id := range r.absent {
		if len(r.suspects) < maxSuspects {
			r.suspects[id] = true
		}
	}
	clear(r.absent)
	for _, d := range r.open {
		d.tries, d.next = 0, time.Time{}
	}
	r.mu.Unlock()
	if waiting {
		r.Soon()
	}
}

// returned counts the calls of Returned.
func (r *Repairer) returned() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.returns
}

// suspect has a segment looked at in the next round, which begins at once.
func (r *Repairer) suspect(id storage.SegmentID) {
	r.mu.Lock()
	if len(r.suspects) < maxSuspects {
		r.suspects[id] = true
	}
	r.mu.Unlock()
	r.Soon()
}

// alone waits until no other round runs.
func (r *Repairer) alone(ctx context.Context) (release func(), err error) {
	select {
	case r.rounds <- struct{}{}:
		return func() { <-r.rounds }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// scene is what judgements depend on now.
func (r *Repairer) scene(now time.Time) Scene {
	s := Scene{
		Self: r.cfg().Self, Now: now, Started: r.started, Grace: r.cfg().Grace, Peers: map[grid.PeerID]grid.Peer{},
		Silent: r.memory.silentSince(), Distrusted: r.memory.distrust(now), Leaving: map[grid.PeerID]bool{},
	}
	for _, p := range r.cfg().Grid.Peers() {
		s.Peers[p.ID] = p
		if p.Record.PledgeBytes == 0 {
			s.Leaving[p.ID] = true
		}
	}
	return s
}

// Standing returns what is known of a peer by audits and reads.
func (r *Repairer) Standing(peer grid.PeerID) Report { return r.memory.report(peer, time.Now()) }

// Weight returns by how much a peer counts as a place for shards: 0 for one
// whose word is not believed, 1 for one in good standing.
func (r *Repairer) Weight(peer grid.PeerID) float64 {
	return r.memory.grade(peer, time.Now()).Weight()
}

// Totals returns what was done since the start.
func (r *Repairer) Totals() Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// Damaged sums up the segments that are known not to be healthy.
type Damaged struct {
	Segments int
	Critical int // no shard more may be lost, or too few are there already
	Waiting  int // somebody else's turn
	Since    time.Time
	Why      string // why the one that was tried most often is not repaired; empty: not tried yet
}

// Damaged returns what is not healthy.
func (r *Repairer) Damaged() Damaged {
	r.mu.Lock()
	defer r.mu.Unlock()
	var d Damaged
	tries := 0
	for _, o := range r.open {
		d.Segments++
		if o.margin <= 0 {
			d.Critical++
		}
		if o.waits {
			d.Waiting++
		}
		if d.Since.IsZero() || o.since.Before(d.Since) {
			d.Since = o.since
		}
		if o.tries > tries {
			tries, d.Why = o.tries, o.why
		}
	}
	return d
}
