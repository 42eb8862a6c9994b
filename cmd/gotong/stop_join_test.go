//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// TestStopsInTime: a peer stops within 10 s while it backs up to and runs tasks
// on partners of which one does not answer at all.
func TestStopsInTime(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t, "--redundancy", "1+1")
	you, friends := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 7, 40, 4_000_000)
	args := []string{"run", guest(t, guests.Spin), "1000000", ":::"}
	for i := range 8 {
		args = append(args, strconv.Itoa(i))
	}
	ended := make(chan said, 2)
	go func() { ended <- gotong(ctx, t, "", append([]string{"--home", you.Home}, args...)...) }()
	go func() { ended <- gotong(ctx, t, "", "--home", you.Home, "backup", source) }()
	busy(ctx, t, friends[0])
	signal(t, friends[1], syscall.SIGSTOP)
	defer signal(t, friends[1], syscall.SIGCONT)
	var wait sync.WaitGroup
	for _, p := range []*localgrid.Peer{friends[0], you} {
		wait.Go(func() {
			begin := time.Now()
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
			t.Logf("%s stopped after %s", p.Name, time.Since(begin).Round(time.Millisecond))
			log, err := os.ReadFile(filepath.Join(p.Home, "up.log"))
			if err != nil || strings.Contains(string(log), "did not stop within") { // its own limit, of less than 10 s
				t.Errorf("%s: %s %v", p.Name, log, err)
			}
		})
	}
	wait.Wait()
	for range 2 {
		if s := <-ended; s.code == 0 || !strings.Contains(s.stderr, "gotong: ") {
			t.Errorf("a command went on without its peer: exit code %d, %q", s.code, s.stderr)
		}
	}
	if err := you.Start(ctx); err != nil {
		t.Error(err)
	}
}

// busy returns when a peer runs a task.
func busy(ctx context.Context, t *testing.T, p *localgrid.Peer) {
	t.Helper()
	eventually(ctx, t, 2*time.Minute, p.Name+" runs a task", func() (bool, error) {
		var s struct {
			Giving struct {
				Busy int `json:"slots_busy"`
			}
		}
		err := p.JSON(ctx, &s, "status")
		return s.Giving.Busy > 0, err
	})
}

func signal(t *testing.T, p *localgrid.Peer, s syscall.Signal) {
	t.Helper()
	if pid := p.PID(); pid != 0 {
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
}
