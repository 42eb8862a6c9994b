package node

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/repair"
	"gotong/storage/vault"
)

// openRepair makes what keeps the shards of others and the own backups healthy.
func (p *Peer) openRepair() (err error) {
	t := p.cfg().repairTiming()
	p.repair, err = repair.New(repair.Config{
		Self: p.ID(), Store: p.store, Rows: repairRows{p.vault}, Segments: p.segments, Grid: repairGrid{p},
		Path:  p.home.state().repair(),
		Grace: t.Grace, Interval: t.Interval, Rate: t.Rate, Audits: t.Audits, Groups: t.Groups,
		Scrub: t.Scrub, Retention: t.Retention, Logger: p.logger,
	})
	return err
}

// repairGrid tells the repair who there is.
type repairGrid struct {
	peer *Peer
}

func (g repairGrid) Peers() []grid.Peer   { return g.peer.membership.Peers() }
func (g repairGrid) Removed() []grid.Peer { return g.peer.membership.Removed() }

func (g repairGrid) Shards(id grid.PeerID) (storage.RemoteShards, error) {
	return g.peer.holders.Shards(id)
}

// repairRows is the own vault, as the repair sees it.
type repairRows struct {
	vault *vault.Vault
}

func (r repairRows) Segments(ctx context.Context) iter.Seq2[repair.Row, error] {
	return func(yield func(repair.Row, error) bool) {
		for s, err := range r.vault.Segments(ctx) {
			row := repair.Row{ID: s.ID, Redundancy: s.Redundancy, Holders: s.Holders, Committed: s.Committed, Complete: s.Complete,
				Lost: s.Lost, SurvivesSites: s.SurvivesSites}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

func (r repairRows) Observe(ctx context.Context, rows []repair.Row) error {
	out := make([]vault.Observation, len(rows))
	for i, row := range rows {
		out[i] = vault.Observation{ID: row.ID, Holders: row.Holders, Committed: row.Committed, Complete: row.Complete,
			Lost: row.Lost, SurvivesSites: row.SurvivesSites}
	}
	return r.vault.Observe(ctx, out)
}

// repairProblems lists what the repair cannot do, or does for long, and holders
// that were found out.
func (p *Peer) repairProblems() []*controlv1.Problem {
	var out []*controlv1.Problem
	if d := p.repair.Damaged(); d.Critical > 0 || d.Why != "" {
		problem := &controlv1.Problem{
			What: fmt.Sprintf("%s below full health since %s, %d of them with no shard to spare", count(d.Segments, "segment"),
				d.Since.Format(time.DateTime), d.Critical),
			Why: "holders are gone or lost shards; they are being rebuilt",
			Do:  "nothing, as long as peers with room are up; see gotong peers",
		}
		if d.Why != "" {
			problem.Why, problem.Do = d.Why, "start peers that are away, or invite one more that gives disk"
		}
		out = append(out, problem)
	}
	if s := p.repair.Shedding(); s.Left > 0 {
		problem := &controlv1.Problem{
			What: fmt.Sprintf("this peer holds %s and gives %s: %s handed over so far", Size(s.LeftBytes), p.cfg().Give, count(s.Shards, "shard")),
			Why:  "give was lowered below what is held", Do: "leave it running until others have taken the rest",
		}
		if s.Stuck > 0 {
			problem.Why = fmt.Sprintf("%s with no other place: %s", count(s.Stuck, "shard"), s.Why)
		}
		out = append(out, problem)
	}
	for _, peer := range p.membership.Peers() {
		if report := p.repair.Standing(peer.ID); report.Grade == repair.GradeBad || report.Grade == repair.GradePoor {
			out = append(out, &controlv1.Problem{
				What: fmt.Sprintf("%s did not have what it says it keeps (%s)", peer.DisplayName(), report.Grade),
				Why:  report.Why, Do: "ask its donor to check the disk; what it should have is rebuilt elsewhere",
			})
		}
	}
	return out
}

// auditOf is the record of a peer's audits, for people and scripts.
func (p *Peer) auditOf(id grid.PeerID) *controlv1.AuditRecord {
	if id == p.ID() {
		return nil
	}
	report := p.repair.Standing(id)
	return &controlv1.AuditRecord{
		Grade: string(report.Grade), Why: report.Why, Detects: report.Detects,
		Success: report.Counts[repair.OutcomeSuccess], Wrong: report.Counts[repair.OutcomeWrong],
		Missing: report.Counts[repair.OutcomeMissing], Away: report.Counts[repair.OutcomeAway],
		Timeout: report.Counts[repair.OutcomeTimeout],
	}
}

// repaired is what was repaired and read again lately, in a few words; empty:
// nothing.
func (p *Peer) repaired() string {
	var parts []string
	if t := p.repair.Totals(); t.Rebuilt > 0 || t.Moved > 0 {
		parts = append(parts, fmt.Sprintf("rebuilt %s, moved %d, the last %s", count(t.Rebuilt, "shard"), t.Moved, ageText(time.Since(t.Last))))
	}
	if s := p.repair.Scrubbed(); !s.Last.IsZero() {
		parts = append(parts, fmt.Sprintf("all that is kept was read again by %s, %d bad so far", s.Last.Format(time.DateOnly), s.Bad))
	}
	return strings.Join(parts, "; ")
}
