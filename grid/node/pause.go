package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks/rules"
)

const (
	pauseVersion  = 1
	maxPauseBytes = 4 << 10
	// maxPause is the longest pause with an end; a longer one has none.
	maxPause = 10 * 365 * 24 * time.Hour
)

// pauses keeps the donor's word that nothing runs, on disk.
type pauses struct {
	file string
	mu   sync.Mutex
	now  *rules.Pause
}

type pauseFile struct {
	Version int       `json:"version"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`
	By      string    `json:"by"`
}

// openPauses reads the file. One that cannot be read counts as a pause: the donor
// may have said so.
func openPauses(file string, logger *slog.Logger) (*pauses, error) {
	p := &pauses{file: file}
	data, err := disk.ReadFile(file, maxPauseBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		p.now, err = parsePause(data)
	}
	if err != nil {
		logger.Warn("the pause cannot be read and counts as one", "file", file, "err", err)
		p.now = &rules.Pause{Since: time.Now(), By: "a file that cannot be read"}
	}
	return p, nil
}

func parsePause(data []byte) (*rules.Pause, error) {
	var f pauseFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Version != pauseVersion {
		return nil, fmt.Errorf("version %d of a pause is not known", f.Version)
	}
	return &rules.Pause{Since: f.Since, Until: f.Until, By: shownName(f.By)}, nil
}

// shownName makes a text one that may be shown as a name.
func shownName(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), grid.MaxNameLen)], "")
	if checkLabel(text) != nil {
		return ""
	}
	return text
}

// at returns the pause that holds at a time, or nil.
func (p *pauses) at(now time.Time) *rules.Pause {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil || p.now.Over(now) {
		return nil
	}
	return p.now
}

// set makes a pause durable, or its end with nil.
func (p *pauses) set(pause *rules.Pause) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pause == nil {
		if err := disk.Remove(p.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.now = nil
		return nil
	}
	data, err := json.Marshal(pauseFile{pauseVersion, pause.Since, pause.Until, pause.By})
	if err != nil {
		return err
	}
	if err := disk.WriteFile(p.file, data, 0o600); err != nil {
		return err
	}
	p.now = pause
	return nil
}

// Pause stops tasks for a while, or until Resume when it is 0, and says until
// when. by is who said so.
func (p *Peer) Pause(length time.Duration, by string) (until time.Time, err error) {
	now := time.Now().Round(0)
	pause := &rules.Pause{Since: now, By: shownName(by)}
	if length < 0 {
		return until, usage("a pause of "+length.String()+" is none", "gotong pause --for 2h")
	}
	if length > 0 && length <= maxPause {
		pause.Until = now.Add(length)
	}
	if err := p.work.donor.pauses.set(pause); err != nil {
		return until, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "the pause could not be noted", Meaning: "tasks run on as before", Next: "gotong pause again", Err: err}
	}
	p.work.donor.decide()
	return pause.Until, nil
}

// Resume ends a pause and reports whether there was one.
func (p *Peer) Resume() (was bool, err error) {
	was = p.work.donor.pauses.at(time.Now()) != nil
	if err := p.work.donor.pauses.set(nil); err != nil {
		return was, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "the end of the pause could not be noted", Meaning: "no tasks run, as before", Next: "gotong resume again", Err: err}
	}
	p.work.donor.decide()
	return was, nil
}

// Pause answers the control API.
func (s *service) Pause(_ context.Context, r *controlv1.PauseRequest) (*controlv1.PauseResponse, error) {
	until, err := s.peer.Pause(time.Duration(min(r.ForSeconds, uint64(maxPause/time.Second)+1))*time.Second, r.By)
	if err != nil {
		return nil, err
	}
	out := &controlv1.PauseResponse{Donating: s.peer.donating()}
	if !until.IsZero() {
		out.UntilUnix = until.Unix()
	}
	return out, nil
}

// Resume answers the control API.
func (s *service) Resume(context.Context, *controlv1.ResumeRequest) (*controlv1.ResumeResponse, error) {
	was, err := s.peer.Resume()
	return &controlv1.ResumeResponse{WasPaused: was, Donating: s.peer.donating()}, err
}
