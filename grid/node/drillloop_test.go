package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDrillAfterClockWasAhead: a clock that was wrong when the last drill ended
// does not put off the next for longer than usual.
func TestDrillAfterClockWasAhead(t *testing.T) {
	p := drillPeer(t, "home")
	now := time.Now()
	if err := p.keepDrill(DrillResult{OK: true, Time: now.AddDate(5, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	if wait := p.untilDrill(time.Hour, now); wait <= 0 || wait > 2*time.Hour {
		t.Errorf("the next drill is in %s", wait)
	}
}

// TestDrillScratch: what a killed drill left goes away, whatever the home is
// called.
func TestDrillScratch(t *testing.T) {
	d := &drill{peer: drillPeer(t, "[home")}
	old, err := d.makeScratch()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.makeScratch(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old directory is there: %v", err)
	}
}

// drillPeer returns a peer that has only a home.
func drillPeer(t *testing.T, name string) *Peer {
	p := &Peer{home: home{dir: filepath.Join(t.TempDir(), name)}}
	if err := os.MkdirAll(p.home.state().dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}
