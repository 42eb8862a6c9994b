package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/disk"
)

const (
	// seenSave is how often the times are written.
	seenSave = 10 * time.Minute
	// maxSeenBytes bounds the file when it is read.
	maxSeenBytes = 16 << 20
)

// seenTimes remembers when each peer was last seen alive, so that "away for
// two days" is right after a restart too. Losing it loses nothing else.
type seenTimes struct {
	path string

	mu    sync.Mutex
	times map[grid.PeerID]time.Time
	saved map[grid.PeerID]time.Time
}

// openSeen reads the file. On an error the result is empty and usable.
func openSeen(path string) (*seenTimes, error) {
	s := &seenTimes{path: path, times: make(map[grid.PeerID]time.Time)}
	if path == "" {
		return s, nil
	}
	data, err := disk.ReadFile(path, maxSeenBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	var seconds map[grid.PeerID]int64
	if err := json.Unmarshal(data, &seconds); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	for peer, at := range seconds {
		s.times[peer] = time.Unix(at, 0)
	}
	return s, nil
}

func (s *seenTimes) note(peer grid.PeerID, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[peer] = now
}

func (s *seenTimes) last(peer grid.PeerID) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.times[peer]
	return at, ok
}

// keep forgets peers for which is is false.
func (s *seenTimes) keep(is func(grid.PeerID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.times, func(peer grid.PeerID, _ time.Time) bool { return !is(peer) })
}

// save writes the file if something changed since.
func (s *seenTimes) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" || maps.Equal(s.times, s.saved) {
		return nil
	}
	seconds := make(map[grid.PeerID]int64, len(s.times))
	for peer, at := range s.times {
		seconds[peer] = at.Unix()
	}
	data, err := json.Marshal(seconds)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(s.path, data, 0o600); err != nil {
		return fmt.Errorf("membership: times at which peers were seen: %w", err)
	}
	s.saved = maps.Clone(s.times)
	return nil
}

func (m *Membership) seenLoop(ctx context.Context) {
	ticker := time.NewTicker(seenSave)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m.seen.keep(m.isMember)
			if err := m.seen.save(); err != nil {
				m.cfg.Logger.Warn("times at which peers were last seen are not saved", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}
