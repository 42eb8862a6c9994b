package node

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gotong/tasks/rules"
	"gotong/tasks/taskrpc"
	"gotong/tasks/worker"
)

// testDonor is a donor whose machine is made up. The clock is the bubble's.
type testDonor struct {
	*donor
	mu    sync.Mutex
	facts rules.Facts
	log   bytes.Buffer
}

func (d *testDonor) set(change func(*rules.Facts)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.facts)
}

func newTestDonor(t *testing.T, change func(*Config)) *testDonor {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Slots = 2
	if change != nil {
		change(&cfg)
	}
	d := &testDonor{facts: rules.Facts{Input: rules.Input{Known: true, Idle: time.Hour}, Memory: rules.Memory{Known: true, Total: 10e9, Available: 8e9}}}
	p := &Peer{live: newLiveConfig(cfg), home: home{t.TempDir()}}
	p.logger = slog.New(slog.NewTextHandler(&d.log, nil))
	w, err := worker.New(worker.Config{Dir: filepath.Join(p.home.dir, "worker"), Slots: cfg.Slots})
	if err != nil {
		t.Fatal(err)
	}
	pauses, err := openPauses(filepath.Join(p.home.dir, "pause"), p.logger)
	if err != nil {
		t.Fatal(err)
	}
	p.work = &work{peer: p, worker: w}
	p.work.service = taskrpc.NewService(taskrpc.Config{Runner: runner{work: p.work, worker: w}})
	d.donor = &donor{work: p.work, rules: cfg.donateRules(), hold: cfg.Donate.Hold, pauses: pauses, sensors: factSensors(func(time.Time) rules.Facts {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.facts
	})}
	p.work.donor = d.donor
	d.rules.Cores = 4
	d.decide()
	return d
}

func (d *testDonor) want(t *testing.T, what string, slots int, why string) {
	t.Helper()
	synctest.Wait()
	if n, got := d.slots(); n != slots || !strings.Contains(got, why) || (why == "") != (got == "") {
		t.Errorf("%s: %d slots because of %q, want %d because of %q", what, n, got, slots, why)
	}
	if got := d.work.worker.Status().Allowed; got != slots {
		t.Errorf("%s: the worker may use %d slots, want %d", what, got, slots)
	}
}

// TestDonorFollowsTheMachine: whatever happens is decided upon within a look.
func TestDonorFollowsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDonor(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.run(ctx) }()
		d.want(t, "at the start", 2, "")
		d.set(func(f *rules.Facts) { f.Input.Idle = 0 })
		time.Sleep(lookEvery)
		d.want(t, "the user is back", 0, "its user was there")
		since := d.latest.Load().since
		time.Sleep(10 * lookEvery)
		if !d.latest.Load().since.Equal(since) {
			t.Error("the same decision counts as a new one")
		}
		d.set(func(f *rules.Facts) { f.Input.Idle = 5 * time.Minute })
		time.Sleep(lookEvery)
		d.want(t, "the user has gone", 2, "")
		d.set(func(f *rules.Facts) {
			f.Load = rules.Load{Known: true, Cores: 2.4}
			f.Power = rules.Power{Known: true, Battery: true}
		})
		time.Sleep(lookEvery)
		d.want(t, "on battery", 0, "battery")
		d.set(func(f *rules.Facts) { f.Power.Battery = false })
		time.Sleep(lookEvery)
		d.want(t, "on the mains", 2, "")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := strings.Count(d.log.String(), "slots by the donor's rules"); n != 5 {
			t.Errorf("%d changes were logged, want 5:\n%s", n, d.log.String())
		}
	})
}

// TestDonorRestsAfterMemory: after guests were killed for memory, none begins for a
// while, though there is memory again.
func TestDonorRestsAfterMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDonor(t, nil)
		d.set(func(f *rules.Facts) { f.Memory.Guests = 9e9 })
		d.decide()
		d.want(t, "guests are large", 0, "more than 75%")
		d.set(func(f *rules.Facts) { f.Memory.Guests = 0 })
		d.decide()
		d.want(t, "they are gone", 0, "short of memory")
		time.Sleep(memoryRest)
		d.decide()
		d.want(t, "later", 2, "")
	})
}

// TestPauseOverTime: a pause ends by itself, or by Resume, and is durable.
func TestPauseOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDonor(t, nil)
		p := d.work.peer
		if _, err := p.Pause(-time.Second, ""); err == nil {
			t.Error("a negative pause is one")
		}
		until, err := p.Pause(2*time.Hour, "ann\x1b[31m")
		if err != nil || !until.Equal(time.Now().Add(2*time.Hour)) {
			t.Fatal(until, err)
		}
		d.want(t, "paused", 0, "paused by its donor until")
		again, err := openPauses(d.pauses.file, p.logger)
		if err != nil || again.at(time.Now()) == nil || !again.now.Until.Equal(until) {
			t.Errorf("%+v, %v from the disk", again, err)
		}
		time.Sleep(2 * time.Hour)
		d.decide()
		d.want(t, "two hours later", 2, "")
		if _, err := p.Pause(0, "ann"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)
		d.decide()
		d.want(t, "paused for good", 0, "paused by ann until gotong resume")
		if was, err := p.Resume(); !was || err != nil {
			t.Error(was, err)
		}
		d.want(t, "resumed", 2, "")
		if was, err := p.Resume(); was || err != nil {
			t.Error(was, err)
		}
	})
}

func FuzzParsePause(f *testing.F) {
	f.Add([]byte(`{"version":1,"since":"2026-11-22T08:00:00Z","by":"ann"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePause(data)
		if err == nil && checkLabel(p.By) != nil {
			t.Errorf("%q is shown", p.By)
		}
		_, _ = parseAccounts(data)
	})
}
