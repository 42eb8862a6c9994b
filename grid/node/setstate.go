package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"gotong/grid/disk"
)

// setState is what is remembered of the runs of one set.
type setState struct {
	FirstSeen time.Time `json:"first_seen"`         // in the configuration
	Began     time.Time `json:"began,omitzero"`     // the last run that made a snapshot
	Snapshot  string    `json:"snapshot,omitempty"` // its id
	Tried     time.Time `json:"tried,omitzero"`     // end of the last run of any outcome
	Failures  int       `json:"failures,omitempty"` // runs without a snapshot since then
	Failed    string    `json:"failed,omitempty"`   // why the last of them failed
	Untidy    string    `json:"untidy,omitempty"`   // why what the rules do not keep is still there
}

// noLaterThan makes times in the future now: they are those of a clock that was
// wrong.
func (s *setState) noLaterThan(now time.Time) {
	for _, t := range []*time.Time{&s.FirstSeen, &s.Began, &s.Tried} {
		if t.After(now) {
			*t = now
		}
	}
}

// setStates has the state of each set by its name.
type setStates map[string]*setState

const (
	setStatesVersion = 1
	maxSetStateBytes = 1 << 20
	maxFailedBytes   = 1 << 10 // of one reason
)

type setStatesFile struct {
	Version int       `json:"version"`
	Sets    setStates `json:"sets"`
}

// readSetStates returns nothing, and no error, when there is no file.
func readSetStates(file string) (setStates, error) {
	data, err := disk.ReadFile(file, maxSetStateBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return setStates{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSetStates(data)
}

func parseSetStates(data []byte) (setStates, error) {
	var file setStatesFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Version != setStatesVersion {
		return nil, fmt.Errorf("states of backup sets: version %d is not known", file.Version)
	}
	out := setStates{}
	for name, state := range file.Sets {
		if state == nil || !setName.MatchString(name) || state.Failures < 0 {
			return nil, fmt.Errorf("states of backup sets: %q", name)
		}
		out[name] = state
	}
	return out, nil
}

func writeSetStates(file string, states setStates) error {
	for _, state := range states {
		state.Failed = state.Failed[:min(len(state.Failed), maxFailedBytes)]
		state.Untidy = state.Untidy[:min(len(state.Untidy), maxFailedBytes)]
	}
	data, err := json.Marshal(setStatesFile{setStatesVersion, states})
	if err != nil {
		return err
	}
	return disk.WriteFile(file, data, 0o600)
}
