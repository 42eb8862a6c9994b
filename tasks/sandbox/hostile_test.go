package sandbox

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/tasks"
	"gotong/tasks/guests"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestEndlessLoop takes real time: the limit is kept by the real clock.
func TestEndlessLoop(t *testing.T) {
	for _, mode := range []string{"spin", "sleep"} {
		c := start(t, "probe", func(cfg *Config) { cfg.Limits.Wall = 300 * time.Millisecond })
		begin := time.Now()
		o := run(t, c, mode)
		wantLimit(t, o, tasks.LimitWall)
		if took := time.Since(begin); took < 300*time.Millisecond || took > time.Minute {
			t.Errorf("%s ended after %s", mode, took)
		}
		<-c.Ended()
	}
}

func TestLoopBeforeStart(t *testing.T) {
	c := start(t, "startloop", func(cfg *Config) { cfg.Limits.Wall = 200 * time.Millisecond })
	wantLimit(t, run(t, c), tasks.LimitWall)
}

// TestLoopDoesNotKeepEarlierOutcomesBack submits a whole window whose last
// request never ends: the others are answered as what they are.
func TestLoopDoesNotKeepEarlierOutcomesBack(t *testing.T) {
	c := start(t, "probe", func(cfg *Config) { cfg.Limits.Wall = 3 * time.Second })
	outcomes := make(chan Outcome, Window)
	for i := range Window {
		args := []string{"echo", itoa(i)}
		if i == Window-1 {
			args = []string{"spin"}
		}
		if _, err := c.Submit(Request{Args: args}, func(o Outcome) { outcomes <- o }); err != nil {
			t.Fatal(err)
		}
	}
	for range Window - 1 {
		wantDone(t, <-outcomes)
	}
	wantLimit(t, <-outcomes, tasks.LimitWall)
}

func TestMemoryHog(t *testing.T) {
	c := start(t, "probe", nil)
	o := run(t, c, "hog")
	wantLimit(t, o, tasks.LimitMemory)
	if o.ExitCode != 3 || string(o.Stderr) != "malloc failed\n" {
		t.Errorf("%+v", o)
	}
	o = run(t, c, "grab", "30000000")
	wantDone(t, o)
	if string(o.Stdout) != "malloc gave\n" {
		t.Errorf("%+v", o)
	}
	// One that copes with a refusal is not at fault.
	o = run(t, c, "grab", "34000000")
	wantDone(t, o)
	if string(o.Stdout) != "malloc refused\n" {
		t.Errorf("%+v", o)
	}
}

func TestRecursion(t *testing.T) {
	c := start(t, "probe", nil)
	for range 2 {
		if o := run(t, c, "recurse"); o.State != tasks.StateFailed || !strings.Contains(o.Why, "trapped") {
			t.Errorf("%+v, want a trap", o)
		}
	}
	wantDone(t, run(t, c, "exit", "0"))
}

// TestTableHog asks for memory that is no linear memory.
func TestTableHog(t *testing.T) {
	wantDone(t, run(t, start(t, "table", nil)))
}

// TestDescriptorHog ends at the limit of the process, which ends with it.
func TestDescriptorHog(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's memory leaves no room for a limit on data")
	}
	c := start(t, "renumber", nil)
	wantLimit(t, run(t, c), tasks.LimitMemory)
	<-c.Ended()
}

func TestStartsTooLarge(t *testing.T) {
	c := start(t, "hiddenmemory", nil)
	for range 3 {
		wantLimit(t, run(t, c), tasks.LimitMemory)
	}
}

func TestFlood(t *testing.T) {
	c := start(t, "probe", nil)
	o := run(t, c, "flood")
	wantLimit(t, o, tasks.LimitStdout)
	if len(o.Stdout) != 64<<10 {
		t.Errorf("%d bytes were kept, want all up to the limit", len(o.Stdout))
	}
	o = run(t, c, "print", "65536")
	wantDone(t, o)
	if len(o.Stdout) != 65536 {
		t.Errorf("%d bytes, want 65536", len(o.Stdout))
	}
	wantLimit(t, run(t, c, "print", "65537"), tasks.LimitStdout)
}

func TestEscapes(t *testing.T) {
	c := start(t, "probe", nil)
	paths := []string{
		"/etc/passwd", "../../../etc/passwd", "/in/../../etc/passwd", "in/../../etc/passwd", "/out/../../../etc/passwd",
		"/proc/self/environ", "/dev/null", "..", "../", "/..", "/in/..//../etc/passwd", "//etc/passwd",
		c.dir, c.dir + "/out", "/out/./../../etc/passwd/", "etc/passwd", "\\..\\..\\etc\\passwd", "/in/\x01",
	}
	o := run(t, c, slices.Concat([]string{"escape"}, paths)...)
	wantDone(t, o)
	for line := range strings.Lines(string(o.Stdout)) {
		// "/.." and "//" are resolved by the guest's own C library to its root.
		if strings.Contains(line, "OPEN") && !strings.HasPrefix(line, "open /..:") && !strings.HasPrefix(line, "stat /..:") {
			t.Errorf("got through: %s", line)
		}
	}
	if len(o.Files) != 0 {
		t.Errorf("made %+v", o.Files)
	}
}

func TestSockets(t *testing.T) {
	c := start(t, "probe", nil)
	o := run(t, c, "socket")
	wantDone(t, o)
	if got, want := string(o.Stdout), "sockets 0\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestModulesThatCannotRun(t *testing.T) {
	l := openLauncher(t)
	for name, module := range map[string][]byte{
		"exports no _start":  guestModule(t, "nostart"),
		"\"fork\"":           guestModule(t, "foreign"),
		"needs 1073741824":   guestModule(t, "bigmemory"),
		"2000000 entries":    guestModule(t, "bigtable"),
		"magic":              []byte("#!/bin/sh\necho hello\n"),
		"module":             guestModule(t, "probe")[:20_000],
		"invalid":            {0, 'a', 's', 'm', 1, 0, 0, 0, 99, 1, 0},
		"module of 67108865": make([]byte, tasks.MaxModuleBytes+1),
	} {
		_, err := l.Start(context.Background(), Config{Dir: t.TempDir(), Module: module, Limits: testLimits()})
		fault, ok := errors.AsType[*ModuleError](err)
		if !ok || fault.Limit != tasks.LimitNone || !strings.Contains(fault.Why, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompileBomb(t *testing.T) {
	begin := time.Now()
	_, err := openLauncher(t).Start(context.Background(), Config{
		Dir: t.TempDir(), Module: guests.CompileBomb(3000, 3000), Limits: testLimits(), CompileWall: time.Second,
	})
	if fault, ok := errors.AsType[*ModuleError](err); !ok || fault.Limit != tasks.LimitCompile {
		t.Errorf("%v, want the compile limit", err)
	}
	if took := time.Since(begin); took > 2*time.Minute {
		t.Errorf("took %s", took)
	}
}
