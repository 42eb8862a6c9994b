package worker

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"gotong/tasks"
)

// TestHostileBesideGood runs every kind of greedy program in one slot while
// somebody's honest tasks run in the other, and compares what the worker's
// process has before and after.
func TestHostileBesideGood(t *testing.T) {
	key := filepath.Join(t.TempDir(), "node.key")
	secret := []byte("the key of this peer")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWorker(t, func(cfg *Config) { cfg.Slots, cfg.Queue, cfg.CodeBytes = 2, 512, 64<<20 })
	good, bad := newBatch(t, w, "probe"), newBatch(t, w, "probe")
	bad.limits.Wall, bad.limits.StdoutBytes, bad.limits.OutputBytes, bad.limits.OutputFiles = 500*time.Millisecond, 64<<10, 1<<20, 32
	input := put(t, w, []byte("an input of somebody else"))
	var wg sync.WaitGroup
	for _, attack := range [][]string{
		{"spin"}, {"hog"}, {"recurse"}, {"flood"}, {"put", "/out/big", "100000000"}, {"many", "100000"}, {"hold"},
		{"escape", key, "../../../../../../../../" + key, "/proc/self/environ"}, {"socket"}, {"spin"},
	} {
		task := bad.task(attack...)
		wg.Go(func() {
			r := do(t, w, task)
			if bytes.Contains(r.Stdout, secret) || bytes.Contains(r.Stdout, []byte("OPEN")) {
				t.Errorf("%s: %q", attack[0], r.Stdout)
			}
			if quiet := attack[0] == "escape" || attack[0] == "socket" || attack[0] == "hold"; !quiet && r.State == tasks.StateDone {
				t.Errorf("%s ended as %s", attack[0], r.State)
			}
		})
	}
	for i := range 200 {
		task := good.task("echo", strconv.Itoa(i))
		wg.Go(func() {
			if r := do(t, w, task); r.State != tasks.StateDone || string(r.Stdout) != strconv.Itoa(i)+"\n" {
				t.Errorf("an honest task: %+v", r)
			}
		})
	}
	wg.Wait()
	if b, err := os.ReadFile(key); err != nil || !bytes.Equal(b, secret) {
		t.Errorf("the key is %q (%v)", b, err)
	}
	f, _, err := w.Store().Open(input)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := w.code.Counts(); got.Compiled != 1 || got.Hits == 0 || got.SetAside != 0 {
		t.Errorf("%+v: one module is compiled once, however many sandboxes it takes", got)
	}
	if err := w.Ready(); err != nil {
		t.Errorf("the worker takes no more tasks: %v", err)
	}
}
