package storage_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/storage"
	"gotong/storage/storagetest"
)

var job = [32]byte(storagetest.Vault("job"))

func jobGrant(t testing.TB) []byte { return device.JobGrant(t, job, 1<<20) }

func TestJobGrant(t *testing.T) {
	raw := jobGrant(t)
	g, err := storage.OpenJobGrant(raw)
	if err != nil {
		t.Fatal(err)
	}
	if g.Job != job || g.Owner != device.Owner || g.Signer != device.Peer || g.Grid != device.Grid || g.OutputBytes != 1<<20 || g.IsZero() {
		t.Errorf("%+v", g)
	}
	for name, err := range map[string]error{
		"other grid": g.Allows(grid.GridID{9}, time.Now()),
		"expired":    g.Allows(device.Grid, g.Expires),
	} {
		if !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := g.Allows(device.Grid, g.Expires.Add(-time.Second)); err != nil {
		t.Error(err)
	}
	for i := range raw {
		b := bytes.Clone(raw)
		b[i] ^= 1
		if _, err := storage.OpenJobGrant(b); !errors.Is(err, storage.ErrDenied) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
	}
	for _, n := range []int{0, 95, 96, 150, len(raw) - 1} {
		if _, err := storage.OpenJobGrant(raw[:n]); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestJobGrantsThatNobodyMayGive(t *testing.T) {
	other := storagetest.NewDevice("another")
	g, _ := storage.OpenJobGrant(jobGrant(t))
	for name, change := range map[string]func(*storage.JobGrant){
		"no job":         func(g *storage.JobGrant) { g.Job = [32]byte{} },
		"no end":         func(g *storage.JobGrant) { g.Expires = time.Time{} },
		"ends at once":   func(g *storage.JobGrant) { g.Expires = g.Created },
		"lasts too long": func(g *storage.JobGrant) { g.Expires = g.Created.Add(storage.MaxJobLife + time.Second) },
		"negative":       func(g *storage.JobGrant) { g.OutputBytes = -1 },
		"too much":       func(g *storage.JobGrant) { g.OutputBytes = storage.MaxJobBytes + 1 },
		"other owner":    func(g *storage.JobGrant) { g.Owner = other.Owner },
		"no delegation":  func(g *storage.JobGrant) { g.Delegation = nil },
		"not for it":     func(g *storage.JobGrant) { g.Owner, g.Delegation = other.Owner, other.Grant },
		"may not write":  func(g *storage.JobGrant) { g.Delegation = device.With(grid.CapRead, 1).Grant },
		"too long":       func(g *storage.JobGrant) { g.Delegation = make([]byte, storage.MaxGrantBytes) },
	} {
		changed := g.JobGrant
		change(&changed)
		if _, err := storage.SignJobGrant(device.Key, changed); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	signed, _ := identity.ParseSigned(g.Raw)
	if _, err := storage.OpenJobGrant(identity.Sign(device.Key, storage.DomainHeader, signed.Body).Encode()); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("signed for something else: %v", err)
	}
}

// TestJobHeader: any member may sign segments of a job under its grant, within
// what the grant says.
func TestJobHeader(t *testing.T) {
	worker := storagetest.NewDevice("worker")
	s := worker.JobSegment(t, jobGrant(t), storage.Redundancy{K: 2, N: 3}, 64, "a").Header
	if s.Owner != device.Owner || s.Signer != worker.Peer || s.JobGrant.Signer != device.Peer || s.Vault != job || s.Kind != storage.GrantJob {
		t.Errorf("%+v", s)
	}
	if err := s.Allows(device.Grid, time.Now()); err != nil {
		t.Error(err)
	}
	if err := s.Allows(grid.GridID{9}, time.Now()); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("other grid: %v", err)
	}
	if err := s.Allows(device.Grid, s.Expires); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("expired: %v", err)
	}
	known, err := storage.ParseKnownHeader(s.Raw, s.ID)
	if err != nil || known.Kind != storage.GrantJob || !known.JobGrant.IsZero() || known.Allows(device.Grid, time.Now()) == nil {
		t.Errorf("known header: %+v, %v", known, err)
	}
	for name, change := range map[string]func(*storage.Header){
		"other vault":      func(h *storage.Header) { h.Vault = vault },
		"other owner":      func(h *storage.Header) { h.Owner = worker.Owner },
		"never expires":    func(h *storage.Header) { h.Expires = time.Time{} },
		"outlives":         func(h *storage.Header) { h.Expires = h.Expires.Add(time.Second) },
		"floor":            func(h *storage.Header) { h.Floor = time.Hour },
		"own delegation":   func(h *storage.Header) { h.Grant = worker.Grant },
		"called otherwise": func(h *storage.Header) { h.Kind = storage.GrantDelegation },
		"unknown kind":     func(h *storage.Header) { h.Kind = 7 },
	} {
		h := s.Header
		change(&h)
		if _, err := storage.SignHeader(worker.Key, h); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
