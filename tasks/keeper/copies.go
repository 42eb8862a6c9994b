package keeper

import (
	"context"
	"slices"
	"time"

	"gotong/grid"
)

// copiesEvery is how often the keepers of a job that is over look whether there
// are still as many of them as it should have.
const copiesEvery = time.Minute

// replaceLost replaces a keeper of a job that is over, when it has been silent
// for the grace; here are those that have the job. It is for the first of them,
// in rendezvous order, to do.
func (j *kept) replaceLost(ctx context.Context, here []answer) {
	j.mu.Lock()
	list := j.list
	by := j.nextStream()
	j.mu.Unlock()
	now, lost := time.Now(), grid.PeerID{}
	silent := map[grid.PeerID]time.Time{}
	for _, id := range without(list.Peers, j.k.self) {
		if slices.ContainsFunc(here, func(a answer) bool { return a.peer == id }) {
			continue
		}
		since, known := j.silent[id]
		if !known {
			since = now
		}
		silent[id] = since
		if now.Sub(since) >= j.k.cfg.Grace {
			lost = id
		}
	}
	j.silent = silent
	if !list.lacks(lost) || now.Before(j.recruitAt) || j.place(here) > 0 {
		return
	}
	id, ok := j.recruit(ctx, by, lost)
	if !ok { // nobody is there who takes it
		j.recruitAt = now.Add(j.k.cfg.Grace)
		return
	}
	p, err := j.k.cfg.Peers(id)
	if err != nil {
		return
	}
	asking, cancel := context.WithTimeout(ctx, j.k.cfg.Lease)
	defer cancel()
	if _, err := p.State(asking, j.question(id)); err != nil { // it asks by itself after a lease
		j.logger.Debug("a new keeper does not know yet what to fetch", "peer", id.Short(), "err", err)
	}
}

// nextStream returns that of the epoch which follows all that are known. Holds
// mu.
func (j *kept) nextStream() Stream {
	return Stream{max(j.lead.Epoch, j.list.By.Epoch) + 1, j.k.self}
}

// lacks reports whether a job should have another keeper, when one of the list
// is lost (zero: none is).
func (l List) lacks(lost grid.PeerID) bool { return len(l.Peers) < Copies || !lost.IsZero() }

// recruit makes a peer a keeper, in the place of one that is lost (zero: none is)
// or where there are too few, and returns it.
func (j *kept) recruit(ctx context.Context, by Stream, lost grid.PeerID) (grid.PeerID, bool) {
	j.mu.Lock()
	list := j.list
	j.mu.Unlock()
	if !list.lacks(lost) {
		return grid.PeerID{}, false
	}
	taken := func(id grid.PeerID) bool { return slices.Contains(list.Peers, id) || id == j.k.self }
	for i, id := range choose(j.plan, j.k.cfg.Grid.Alive(), taken) {
		if i == recruitsAtOnce {
			break
		}
		peers := append(without(list.Peers, lost), id)
		if !slices.Contains(peers, j.k.self) {
			peers = append(peers, j.k.self)
		}
		next := List{By: by, Number: list.Number + 1, Peers: peers[max(0, len(peers)-maxKeepers):]}
		if j.engage(ctx, id, next) {
			return id, true
		}
	}
	return grid.PeerID{}, false
}

// recruitsAtOnce is how many peers are asked to keep a job in one round.
const recruitsAtOnce = 4

// engage makes a peer a keeper.
func (j *kept) engage(ctx context.Context, id grid.PeerID, next List) bool {
	p, err := j.k.cfg.Peers(id)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, j.k.cfg.Lease)
	defer cancel()
	r := j.gift()
	r.List = next
	if err := p.Put(ctx, r); err != nil {
		j.logger.Debug("a peer does not become a keeper", "peer", id.Short(), "err", err)
		return false
	}
	j.logger.Info("a peer became a keeper", "peer", id.Short())
	return j.learn(next, nil) == nil
}

// compare takes in what other keepers of a job that is over have and this one
// has not: records of a driver that was cut off, or what the owner said. Those
// that lack the job are given it. Nobody begins to keep what is soon forgotten:
// those that gave it could be gone before it has the journal.
func (j *kept) compare(ctx context.Context, forget time.Time) {
	answers, without := j.ask(ctx)
	for _, a := range answers {
		err := j.learn(a.state.List, a.state.Statements)
		if err == nil {
			err = j.fetch(ctx, a)
		}
		if err != nil {
			j.logger.Debug("journal of another keeper not read", "peer", a.peer.Short(), "err", err)
		}
	}
	if time.Until(forget) < j.k.cfg.Grace {
		return
	}
	for _, a := range without { // it was away when the job was given to it, or lost it
		giving, cancel := context.WithTimeout(ctx, j.k.cfg.Lease)
		err := a.via.Put(giving, j.gift())
		cancel()
		if err != nil {
			j.logger.Debug("a keeper does not take the job", "peer", a.peer.Short(), "err", err)
			continue
		}
		answers = append(answers, a)
	}
	j.replaceLost(ctx, answers)
}
