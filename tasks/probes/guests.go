package probes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"gotong/tasks"
	"gotong/tasks/guests"
	"gotong/tasks/sandbox"
)

// Times of the guests.
const (
	// guestWall ends a guest that does not end; one that ends by itself needs a
	// small part of it, on a busy machine too.
	guestWall = time.Minute
	// loopWall ends those that are known not to.
	loopWall = 300 * time.Millisecond
	// bombWall ends a compilation that is known not to.
	bombWall = time.Second
)

// guestProbe is a hostile module and what must become of it.
type guestProbe struct {
	name   string
	module []byte
	args   []string
	loops  bool // it never ends by itself
	judge  func(o sandbox.Outcome, fault error) (refused bool, how string)
}

// hostile lists the modules, each against one wall.
func hostile() []guestProbe {
	module := guests.Module
	return []guestProbe{
		{"endless loop", module(guests.Spin), nil, true, limited(tasks.LimitWall)},
		{"endless loop before its start", guests.StartLoop(), nil, true, limited(tasks.LimitWall)},
		{"all memory", module(guests.Hog), nil, false, limited(tasks.LimitMemory)},
		{"endless recursion", module(guests.Recurse), nil, false, limited(tasks.LimitMemory)},
		{"compile bomb", guests.CompileBomb(3000, 3000), nil, false, faulty(tasks.LimitCompile)},
		{"table bomb", guests.TableBomb(1 << 30), nil, false, faulty(tasks.LimitNone)},
		{"files outside: .., absolute paths, links, slashes at the end", module(guests.Escape), nil, false, saysRefused},
		{"sockets", module(guests.Socket), nil, false, saysRefused},
		{"environment, clock and randomness", module(guests.Facts), nil, false, tellsNothing},
		{"flood of standard output", module(guests.Flood), nil, false, limited(tasks.LimitStdout)},
		{"flood of standard error", module(guests.Flood), []string{"100000000", "2"}, false, limited(tasks.LimitStdout)},
		{"fill /out with bytes", module(guests.Fill), []string{"bytes"}, false, limited(tasks.LimitOutput)},
		{"fill /out with files", module(guests.Fill), []string{"files"}, false, limited(tasks.LimitOutput)},
		{"fill /out with deep directories", module(guests.Fill), []string{"dirs"}, false, stoppedItself},
		{"fork and exec", module(guests.Fork), nil, false, faulty(tasks.LimitNone)},
	}
}

// limited wants the end at a limit.
func limited(limit tasks.Limit) func(sandbox.Outcome, error) (bool, string) {
	return func(o sandbox.Outcome, fault error) (bool, string) {
		if fault != nil {
			return false, "could not be tried: " + fault.Error()
		}
		return o.State == tasks.StateLimit && o.Limit == limit, ended(o)
	}
}

// faulty wants the module refused before it runs.
func faulty(limit tasks.Limit) func(sandbox.Outcome, error) (bool, string) {
	return func(o sandbox.Outcome, fault error) (bool, string) {
		if fault == nil {
			return false, "it ran: " + ended(o)
		}
		f, ok := errors.AsType[*sandbox.ModuleError](fault)
		return ok && f.Limit == limit, fault.Error()
	}
}

// saysRefused believes the guest, which ends with 0 when all was refused.
func saysRefused(o sandbox.Outcome, fault error) (bool, string) {
	if fault != nil {
		return false, "could not be tried: " + fault.Error()
	}
	text := strings.TrimSpace(string(o.Stdout))
	return o.State == tasks.StateDone && text == "all refused", text
}

// stoppedItself wants the guest to have been refused and to say so.
func stoppedItself(o sandbox.Outcome, fault error) (bool, string) {
	if fault != nil {
		return false, "could not be tried: " + fault.Error()
	}
	if o.State == tasks.StateLimit {
		return true, ended(o)
	}
	text := strings.TrimSpace(string(o.Stderr))
	if o.ExitCode != 1 || !strings.HasPrefix(text, "stopped after") {
		return false, ended(o)
	}
	return true, text
}

// clockFact is what a guest's first look at the clock shows, everywhere.
const clockFact = "clock 0 1577836800001000000\n"

// tellsNothing wants no environment and the clock of every other machine.
func tellsNothing(o sandbox.Outcome, fault error) (bool, string) {
	if fault != nil {
		return false, "could not be tried: " + fault.Error()
	}
	text := string(o.Stdout)
	if o.State != tasks.StateDone || !strings.Contains(text, "environment 0\n") || !strings.Contains(text, clockFact) {
		return false, text
	}
	if host := os.Getenv("PATH"); host != "" && strings.Contains(text, host) {
		return false, "it sees this machine's PATH"
	}
	return true, "no environment, the clock starts at 2020-01-01, randomness is that of the task"
}

func ended(o sandbox.Outcome) string {
	if o.Why != "" {
		return o.Why
	}
	return fmt.Sprintf("ended: %s", o.State)
}

// guests runs the hostile modules one after the other.
func (r *run) guests(ctx context.Context) error {
	for _, p := range hostile() {
		o, fault, err := r.guest(ctx, p)
		if err != nil {
			return err
		}
		refused, how := p.judge(o, fault)
		r.add(Probe{"guest: " + p.name, refused, how})
	}
	return nil
}

// guest runs one module in a child of its own. fault says that it was refused
// before it ran; err that this machine failed.
func (r *run) guest(ctx context.Context, p guestProbe) (o sandbox.Outcome, fault, err error) {
	dir, err := r.staging()
	if err != nil {
		return o, nil, err
	}
	defer os.RemoveAll(dir)
	limits := smallLimits()
	if p.loops {
		limits.Wall = loopWall
	}
	c, err := r.launcher.Start(ctx, sandbox.Config{Dir: dir, Module: p.module, Limits: limits, CompileWall: r.compileWall(p)})
	if _, ok := errors.AsType[*sandbox.ModuleError](err); ok {
		return o, err, nil
	}
	if err != nil {
		return o, nil, err
	}
	defer c.Close()
	o, err = submit(ctx, c, sandbox.Request{Args: p.args})
	return o, nil, err
}

// compileWall is short only for the module that never compiles in time.
func (r *run) compileWall(p guestProbe) time.Duration {
	if p.name == "compile bomb" {
		return bombWall
	}
	return 0
}

// submit runs one request and waits for its outcome.
func submit(ctx context.Context, c *sandbox.Child, request sandbox.Request) (sandbox.Outcome, error) {
	done := make(chan sandbox.Outcome, 1)
	running, err := c.Submit(request, func(o sandbox.Outcome) { done <- o })
	if err != nil {
		return sandbox.Outcome{}, err
	}
	select {
	case o := <-done:
		return o, nil
	case <-ctx.Done():
		running.Abandon()
		<-done
		return sandbox.Outcome{}, ctx.Err()
	}
}
