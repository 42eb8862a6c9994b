package keeper

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid"
)

// submitTries bounds how many peers are asked to keep a job.
const submitTries = 16

// Submitted says where a job is after Submit.
type Submitted struct {
	Durable []grid.PeerID // have it on disk; this peer may be one of them
	// Alone says that only this peer keeps the job: when it goes, the job goes.
	Alone bool
}

// put is what became of asking a peer.
type put struct {
	peer grid.PeerID
	err  error
}

// Submit gives a job of this peer to its keepers. When it returns without an
// error, two of them have it on disk, or as many as there are, and this peer is
// needed no more, unless it is Alone. ErrTooFew with every peer's reason says that
// nobody keeps it.
func (k *Keeper) Submit(ctx context.Context, raw []byte) (Submitted, error) {
	plan, err := k.cfg.Book.OpenPlan(raw)
	if err != nil {
		return Submitted{}, err
	}
	if plan.Submitter != k.self || plan.Owner != k.cfg.Owner {
		return Submitted{}, fmt.Errorf("%w: the plan is another peer's", ErrDenied)
	}
	self := func(p grid.PeerID) bool { return p == k.self }
	others := choose(plan, k.cfg.Grid.Alive(), self)
	others = others[:min(len(others), submitTries)]
	own := k.cfg.Jobs > 0 && (len(others) == 0 || (len(others) < Copies && plan.Keepers != KeepersFriends))
	s := &submission{k: k, raw: raw, own: own, asked: map[grid.PeerID]bool{}, durable: map[grid.PeerID]bool{}}
	s.run(ctx, others)
	if len(s.durable) == 0 {
		s.takeBack(ctx, plan)
		return Submitted{}, s.tooFew(plan)
	}
	durable := slices.SortedFunc(maps.Keys(s.durable), grid.PeerID.Compare)
	return Submitted{durable, slices.Equal(durable, []grid.PeerID{k.self})}, nil
}

// submission is one Submit at work.
type submission struct {
	k       *Keeper
	raw     []byte
	own     bool // this peer keeps it too
	list    List
	asked   map[grid.PeerID]bool
	durable map[grid.PeerID]bool
	failed  []put
}

// run asks peers until enough have the job, or all were asked.
func (s *submission) run(ctx context.Context, others []grid.PeerID) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	results := make(chan put, (len(others)+1)*(len(others)+1))
	waiting := 0
	ask := func(peer grid.PeerID) {
		s.asked[peer] = true
		waiting++
		r := PutRequest{Plan: s.raw, List: s.list}
		wg.Go(func() { results <- put{peer, s.k.put(ctx, peer, r)} })
	}
	first := slices.Clone(others[:min(Copies, len(others))])
	rest := others[len(first):]
	if s.own {
		first = append(first, s.k.self)
	}
	s.list = List{Number: 1, Peers: first}
	for _, peer := range first {
		ask(peer)
	}
	for waiting > 0 && len(s.durable) < durableCopies {
		p := <-results
		waiting--
		if p.err == nil {
			s.durable[p.peer] = true
			continue
		}
		s.failed = append(s.failed, p)
		if len(rest) == 0 || s.durable[p.peer] {
			continue
		}
		s.list = List{Number: s.list.Number + 1, Peers: append(without(s.list.Peers, p.peer), rest[0])}
		rest = rest[1:]
		for _, peer := range s.list.Peers { // those that have it learn of the new one
			if !s.asked[peer] || s.durable[peer] {
				ask(peer)
			}
		}
	}
	cancel() // the driver gives the job to those that are left
	wg.Wait()
	close(results)
	for p := range results {
		if p.err == nil {
			s.durable[p.peer] = true
		}
	}
}

// takeBack tells peers that may have the job, without having said so, to forget
// it.
func (s *submission) takeBack(ctx context.Context, plan Plan) {
	raw, err := SignStatement(s.k.cfg.Key, Statement{Job: plan.Job, Kind: KindRemove, At: time.Now(), Why: "not submitted"})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.k.cfg.Lease/beats)
	defer cancel()
	var wg sync.WaitGroup
	for peer := range s.asked {
		if p, err := s.k.cfg.Peers(peer); err == nil && peer != s.k.self {
			wg.Go(func() { _ = p.Say(ctx, plan.Job, raw) }) // it may not even be there
		}
	}
	wg.Wait()
}

// put asks one peer, this one too, to keep a job.
func (k *Keeper) put(ctx context.Context, peer grid.PeerID, r PutRequest) error {
	if peer == k.self {
		return k.take(r)
	}
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Lease)
	defer cancel()
	p, err := k.cfg.Peers(peer)
	if err != nil {
		return err
	}
	return p.Put(ctx, r)
}

// tooFew says why nobody keeps a job.
func (s *submission) tooFew(plan Plan) error {
	var why []string
	for _, p := range s.failed {
		why = append(why, p.peer.Short()+": "+p.err.Error())
	}
	if len(why) == 0 {
		why = []string{map[Policy]string{
			KeepersMine:    "no other device of yours is there",
			KeepersFriends: "no peer of another owner is there",
		}[plan.Keepers]}
		if why[0] == "" {
			why[0] = "no other peer is there"
		}
		if s.k.cfg.Jobs <= 0 {
			why = append(why, "this peer keeps no jobs (tasks.keep_jobs)")
		}
	}
	return fmt.Errorf("%w: %s", ErrTooFew, strings.Join(why, "; "))
}
