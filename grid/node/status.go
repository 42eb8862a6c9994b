package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
)

// Status says how things are, from what this peer knows; it asks nobody.
func (p *Peer) Status(ctx context.Context) (*controlv1.StatusResponse, error) {
	view := p.roster.View()
	s := &controlv1.StatusResponse{
		Grid: view.Grid().String(), Peer: p.ID().String(), Name: p.cfg().Name, Listen: p.net.Addr().String(),
		Giving: p.giving(), Donating: p.donating(), Work: p.ownerWork(),
	}
	var away []grid.Peer
	for _, peer := range p.membership.Peers() {
		s.PeersTotal++
		if peer.State == grid.StateAlive {
			s.PeersAlive++
		} else {
			away = append(away, peer)
		}
	}
	var err error
	if s.Backups, err = p.backupStates(ctx); err != nil {
		return nil, err
	}
	s.Problems = slices.Concat(backupProblems(s.Backups), p.problems(), p.repairProblems())
	s.Repaired = p.repaired()
	p.drillState(s)
	s.Sentence = sentence(s, away)
	return s, nil
}

// maxNamed bounds the peers that one sentence names.
const maxNamed = 5

// problems lists what a person should know: shards that others delivered
// wrong, shards of this disk that went bad, peers that contradict themselves.
func (p *Peer) problems() []*controlv1.Problem {
	var out []*controlv1.Problem
	if f := p.outdated.Load(); f != nil {
		out = append(out, &controlv1.Problem{What: f.What, Why: f.Meaning, Do: f.Next})
	}
	for _, bad := range p.segments.Problems() {
		out = append(out, &controlv1.Problem{
			What: fmt.Sprintf("%s delivered a bad shard of segment %s, %s", p.nameOf(bad.Peer), bad.Shard.Segment.Short(), count(bad.Count, "time")),
			Why:  bad.What, Do: "ask its donor to check the disk; the data was read from others",
		})
	}
	for _, bad := range p.store.Problems() {
		out = append(out, &controlv1.Problem{What: bad.What, Why: bad.Why, Do: "check this disk: what it keeps for others goes bad"})
	}
	if by := p.net.RemovedBy(); len(by) > 0 {
		var names []string
		for _, id := range by[:min(len(by), maxNamed)] {
			names = append(names, p.nameOf(id))
		}
		out = append(out, &controlv1.Problem{
			What: "this peer was removed from the grid; so says " + strings.Join(names, ", "),
			Why:  "an admin, whoever invited it, or a peer of its own owner removed it", Do: "ask who did; to come back, join with a new invite from a new home",
		})
	}
	out = append(out, p.doubtsAboutOwn()...)
	for _, peer := range p.membership.Peers() {
		if peer.Forked {
			out = append(out, &controlv1.Problem{
				What: peer.DisplayName() + " has signed two different statements under one number",
				Why:  "its disk was cloned or restored, or its key is in two hands", Do: "ask its owner; it works on, but cannot admit or remove anyone until invited again",
			})
		}
	}
	return out
}

// doubtsAboutOwn names other devices of the owner that removed somebody lately: if
// it was not the owner, somebody else has them.
func (p *Peer) doubtsAboutOwn() (out []*controlv1.Problem) {
	view := p.roster.View()
	for _, d := range view.Doubts(p.owner(), time.Now().Add(-p.cfg().Retention.Floor), p.roster.Learnt()) {
		if d.Device == p.ID() || len(d.Removals) == 0 {
			continue
		}
		last := d.Removals[len(d.Removals)-1]
		who := "an owner"
		if !last.Peer.IsZero() {
			who = p.nameOf(last.Peer)
		}
		out = append(out, &controlv1.Problem{
			What: fmt.Sprintf("your device %s removed %s %s", p.nameOf(d.Device), who, ageText(time.Since(last.Learnt))),
			Why:  "if you did not do that, somebody else has that device, and may remove every friend of yours",
			Do:   "if it was not you: gotong recover --undo-removals in a new home, within " + p.cfg().Retention.Floor.String(),
		})
	}
	return out
}

// sentence is the state in one line.
func sentence(s *controlv1.StatusResponse, away []grid.Peer) string {
	parts := []string{backupSentence(s.Backups)}
	if len(away) == 1 {
		parts = append(parts, away[0].DisplayName()+" is away.")
	} else if len(away) > 1 {
		parts = append(parts, fmt.Sprintf("%d peers are away.", len(away)))
	}
	parts = append(parts, fmt.Sprintf("Giving %s of %s.", humanize.Bytes(s.Giving.HeldBytes), humanize.Bytes(s.Giving.PledgeBytes)))
	if n := len(s.Problems); n == 1 {
		parts = append(parts, "1 problem needs a look.")
	} else if n > 1 {
		parts = append(parts, fmt.Sprintf("%d problems need a look.", n))
	}
	return strings.Join(parts, " ")
}

// ageText is a time since then as people say it.
func ageText(age time.Duration) string {
	if age < time.Minute {
		return "just now"
	}
	return humanize.RelTime(time.Now().Add(-age), time.Now(), "ago", "from now")
}
