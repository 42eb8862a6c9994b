package contents_test

import (
	"errors"
	"slices"
	"testing"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/storagetest"
	"gotong/tasks"
)

// TestHeld: what is stored is found whatever the hints say; what nobody has, what
// too few have, and segments of other jobs are not.
func TestHeld(t *testing.T) {
	all := newHolders(5) // 2 of 5
	c, job, data := all.by(t, worker), newJob(t), random(2*piece+5)
	s := put(t, c, job, data)
	driver := all.by(t, owner)
	for name, change := range map[string]func(*tasks.Stored){
		"as it is": func(*tasks.Stored) {}, "no hints": func(s *tasks.Stored) { s.Holders = nil },
		"strangers": func(s *tasks.Stored) { s.Holders = []grid.PeerID{{1}} },
	} {
		at := s
		change(&at)
		if err := driver.Held(t.Context(), job, at); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	invented := s
	invented.Segments = slices.Clone(s.Segments)
	invented.Segments[1] = storage.SegmentID{1}
	if err := driver.Held(t.Context(), job, invented); !errors.Is(err, storage.ErrTooFewShards) {
		t.Errorf("an invented segment: %v", err)
	}
	other := job
	other.ID = tasks.JobID{9}
	if err := driver.Held(t.Context(), other, s); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("segments of another job: %v", err)
	}
	if err := driver.Held(t.Context(), job, tasks.Stored{Size: 5}); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("no segments: %v", err)
	}
	for _, h := range all[:4] {
		h.faults.Set(storagetest.Faults{Down: grid.ErrUnreachable})
	}
	if err := driver.Held(t.Context(), job, s); !errors.Is(err, storage.ErrTooFewShards) {
		t.Errorf("one holder of five is there: %v", err)
	}
}
