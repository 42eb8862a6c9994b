package node

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage/seal"
)

// DrillConfig says how often a restore is tried out.
type DrillConfig struct {
	Every time.Duration `mapstructure:"every"` // between two drills by the peer itself; 0: none
	Files int           `mapstructure:"files"` // that each restores
}

const (
	maxDrillBytes = 64 << 10 // of the kept result
	// drillFirst is how long after its start a peer that never drilled does so at
	// most, and drillAgain after how long one that failed is repeated.
	drillFirst = 24 * time.Hour
	drillAgain = 6 * time.Hour
	// drillJitter is the share of the time between drills by which they vary.
	drillJitter = 0.2
	// drillPoll is how often the wall clock is looked at.
	drillPoll = time.Hour
	// drillOverdue is how many times drill.every may pass before the lack of a
	// drill that passed is a problem.
	drillOverdue = 2
)

// keepDrill stores a result; LastDrill reads it.
func (p *Peer) keepDrill(r DrillResult) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(p.home.state().drill(), text, 0o600); err != nil {
		return fmt.Errorf("keep the result of the drill: %w", err)
	}
	return nil
}

// LastDrill returns how the last drill went; false when there was none, or its
// record cannot be read.
func (p *Peer) LastDrill() (DrillResult, bool) {
	text, err := disk.ReadFile(p.home.state().drill(), maxDrillBytes)
	if err != nil {
		return DrillResult{}, false
	}
	var r DrillResult
	if err := json.Unmarshal(text, &r); err != nil {
		return DrillResult{}, false
	}
	return r, true
}

// runDrills drills now and then until ctx ends.
func (p *Peer) runDrills(ctx context.Context) error {
	for {
		changed := p.live.changed()
		every := p.cfg().Drill.Every
		if every <= 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				continue
			}
		}
		if !sleepUntil(ctx, time.Now().Add(p.untilDrill(every, time.Now())), changed) {
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		if p.vault.Head().IsZero() { // nothing to prove yet; look again later
			if !sleep(ctx, jitter(min(every, drillAgain))) {
				return nil
			}
			continue
		}
		result, err := p.Drill(ctx, p.cfg().Drill.Files, seal.VaultSecrets{})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			p.logger.Warn("drill", "err", err)
			if !sleep(ctx, jitter(min(every, drillAgain))) {
				return nil
			}
		case !result.OK:
			p.logger.Warn("the drill failed: a restore would not bring everything back", "why", result.Problem)
		default:
			p.logger.Info("the drill passed", "what", result.What, "files", result.Files, "bytes", result.Bytes, "seconds", result.Seconds)
		}
	}
}

// untilDrill returns how long it is to the next drill.
func (p *Peer) untilDrill(every time.Duration, now time.Time) time.Duration {
	last, ok := p.LastDrill()
	switch {
	case !ok:
		return jitter(min(every, drillFirst) / 2)
	case !last.OK:
		every = min(every, drillAgain)
	}
	// A clock that was ahead when the last one ended must not put off the next.
	return max(0, jitter(every)-max(0, now.Sub(last.Time)))
}

// jitter returns about d, so that not all peers do things at once.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - drillJitter/2 + drillJitter*rand.Float64()))
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleepUntil waits until the wall clock shows a time, also on a machine that
// sleeps meanwhile, where timers stand still; false when ctx ended or stop was
// closed first.
func sleepUntil(ctx context.Context, due time.Time, stop <-chan struct{}) bool {
	due = due.Round(0) // drops the clock that stands still
	for {
		left := due.Sub(time.Now().Round(0))
		if left <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(min(left, drillPoll))
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
		case <-stop:
		}
		timer.Stop()
		return false
	}
}

// drillState puts the last drill into a status, with what is wrong about it.
func (p *Peer) drillState(s *controlv1.StatusResponse) {
	last, ok := p.LastDrill()
	if ok {
		s.LastDrill = drillMessage(last)
	}
	if !ok || p.vault.Head().IsZero() {
		return
	}
	switch every := p.cfg().Drill.Every; {
	case !last.OK:
		s.Problems = append(s.Problems, &controlv1.Problem{What: "the last drill failed, " + ageText(time.Since(last.Time)),
			Why: validText(last.Problem), Do: "gotong check, then gotong drill"})
	case every > 0 && time.Since(last.Time) > drillOverdue*every:
		s.Problems = append(s.Problems, &controlv1.Problem{What: "the last drill that passed was " + ageText(time.Since(last.Time)),
			Why: fmt.Sprintf("one is due every %s; this peer was not up, or friends were not", every), Do: "gotong drill"})
	}
}

func drillMessage(r DrillResult) *controlv1.DrillResult {
	var passed int64
	if !r.Passed.IsZero() {
		passed = r.Passed.Unix()
	}
	return &controlv1.DrillResult{
		PassedUnix: passed,
		TimeUnix:   r.Time.Unix(), Ok: r.OK, What: r.What, Phrase: r.Phrase, Snapshot: r.Snapshot, Files: r.Files, Bytes: r.Bytes,
		Segments: r.Segments, SitesNeeded: uint32(r.SitesNeeded), Seconds: r.Seconds, Head: r.Head, Problem: validText(r.Problem),
	}
}

// Drill tries a restore out. It is a stream only because it takes long.
func (s *service) Drill(r *controlv1.DrillRequest, stream controlv1.Control_DrillServer) error {
	var secrets seal.VaultSecrets
	if len(r.Secrets) > 0 {
		var err error
		if secrets, err = seal.ParseSecrets(r.Secrets); err != nil {
			return err
		}
		clear(r.Secrets)
		if secrets.Vault() != s.peer.vault.ID() {
			return seal.ErrWrongReadKey
		}
	}
	result, err := s.peer.Drill(stream.Context(), int(r.Files), secrets)
	if err != nil {
		return err
	}
	return stream.Send(drillMessage(result))
}
