package sandbox

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gotong/tasks"
	"gotong/tasks/guests"
)

// digits is what the guest flood writes.
func digits(n int) []byte { return bytes.Repeat([]byte("0123456789"), n/10+1)[:n] }

// TestLargeStdout: what fits a result is in it, what is longer is a file, and what is
// beyond the limit ends the guest and leaves nothing but the beginning.
func TestLargeStdout(t *testing.T) {
	const limit = 6 << 20
	var dir string
	c := start(t, "probe", func(cfg *Config) {
		cfg.Module, cfg.Limits.StdoutBytes = guests.Module(guests.Flood), limit
		dir = filepath.Join(cfg.Dir, outputDir)
	})
	for _, n := range []int{0, tasks.InlineStdoutBytes, tasks.InlineStdoutBytes + 1, 5_000_000, limit} {
		o := run(t, c, strconv.Itoa(n))
		wantDone(t, o)
		got := o.Stdout
		if large := n > tasks.InlineStdoutBytes; large != o.LargeStdout.Spilled() || large && len(got) > 0 {
			t.Fatalf("%d bytes: %d in the outcome, %+v", n, len(got), o.LargeStdout)
		} else if large {
			r, err := c.OpenOutput(o.LargeStdout)
			if err != nil {
				t.Fatal(err)
			}
			if got, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
			r.Close()
			if err := c.DropOutput(o.LargeStdout); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, digits(n)) {
			t.Errorf("%d bytes came as %d", n, len(got))
		}
	}
	for _, args := range [][]string{nil, {strconv.Itoa(limit + 1)}} {
		o := run(t, c, args...)
		wantLimit(t, o, tasks.LimitStdout)
		if o.LargeStdout.Spilled() || !bytes.Equal(o.Stdout, digits(tasks.InlineStdoutBytes)) {
			t.Errorf("beyond the limit: %d bytes, %+v", len(o.Stdout), o.LargeStdout)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
}

// TestStdoutThatCannotBeKept is the fault of the machine: the task is lost, however
// little its program cares.
func TestStdoutThatCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{inputDir, outputDir} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	limits := tasks.DefaultLimits()
	store, err := openStore(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	defer store.in.Close()
	defer store.out.Close()
	g, err := compile(guests.Module(guests.Flood), limits, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.runtime.Close(g.ctx)
	if err := os.Remove(filepath.Join(dir, outputDir)); err != nil {
		t.Skip(err) // where a directory in use stays
	}
	r := g.run(taskMessage{Args: []string{"3000000"}})
	if r.State != tasks.StateLost || r.ExitCode != tasks.NoExitCode || !strings.Contains(r.Why, "standard output") {
		t.Errorf("%s %s %d %s", r.State, r.Limit, r.ExitCode, r.Why)
	}
	if r := g.run(taskMessage{Args: []string{"3"}}); r.State != tasks.StateDone || string(r.Stdout) != "012" {
		t.Errorf("afterwards: %s %q", r.State, r.Stdout)
	}
}
