package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"gotong/tasks"
)

// Bounds of a conversation with a child.
const (
	// Window is how many requests may be in flight in one child. One runs, the
	// others spare it the wait for the next.
	Window = 16
	// abandonGrace is how long an abandoned run may go on: killing costs the
	// compiled module, and most runs are shorter.
	abandonGrace = 100 * time.Millisecond
)

// ErrEnded says that the child takes no more requests.
var ErrEnded = errors.New("sandbox process has ended")

// Child is one sandbox process with one compiled module. Its methods may be
// called at any time from anywhere.
type Child struct {
	cmd     *exec.Cmd
	limits  tasks.Limits
	grace   time.Duration // of an abandoned run
	dir     string
	outputs *os.Root
	layers  []Layer
	engine  string

	cgroup string          // of its own; empty: none
	most   *isolationFound // how it is isolated if not as others, to probe what that stops

	stdin  io.WriteCloser
	frames frameReader
	stderr headBuffer
	writer *batchWriter

	mu        sync.Mutex
	runs      []*Run // in flight, in order; the first is running
	headSince time.Time
	timer     *time.Timer
	armed     bool
	held      time.Time     // since when the process is stopped; zero: it is not
	headHeld  time.Duration // how long it was while the first of runs ran
	cause     cause
	reaped    bool
	ended     chan struct{} // closed when the process is gone and every run is answered
	closing   sync.Once
}

// cause says why the parent killed the child; the first cause stands.
type cause int

const (
	causeNone cause = iota
	causeStart
	causeWall
	causeAbandoned
	causeProtocol
	causeClosed
)

// Request asks for one run.
type Request struct {
	Args   []string
	Inputs []tasks.Input // staged before: see Child.InputPath
	// Stdin names what standard input gives, staged like an input; zero: nothing.
	Stdin     tasks.ContentID
	StdinSize int64
	Seed      [32]byte
}

// File is one file that a run left below /out.
type File struct {
	Name   string
	Size   int64
	Data   []byte // the bytes, if they came with the outcome
	number uint64 // else the name of the file in the staging directory
}

// Spilled reports whether the bytes are in the staging directory: see
// Child.OpenOutput and Child.DropOutput.
func (f File) Spilled() bool { return f.number != 0 }

// Outcome says how a run ended.
type Outcome struct {
	// NotRun: the child ended before it came to this request. All other fields
	// are zero; another child may be asked.
	NotRun bool
	// Unfit: what was asked for cannot run on this machine, for Why; State is
	// tasks.StateLost. It may run on another.
	Unfit    bool
	State    tasks.State
	Limit    tasks.Limit
	ExitCode int // or tasks.NoExitCode
	Why      string
	Stdout   []byte
	// LargeStdout is the standard output in place of Stdout when there is an exit code
	// and it is longer than tasks.InlineStdoutBytes: a spilled file without a name.
	// Without an exit code Stdout is its beginning.
	LargeStdout File
	Stderr      []byte
	Files       []File // when there is an exit code
	Elapsed     time.Duration
}

// Spilled returns the spilled files of o.
func (o Outcome) Spilled() (list []File) {
	if o.LargeStdout.Spilled() {
		list = append(list, o.LargeStdout)
	}
	for _, f := range o.Files {
		if f.Spilled() {
			list = append(list, f)
		}
	}
	return list
}

// Run is one request in flight.
type Run struct {
	child     *Child
	done      func(Outcome)
	abandoned time.Time // zero: still wanted
}

// Layers returns what confines the child.
func (c *Child) Layers() []Layer { return c.layers }

// Engine names what runs the module, with its version.
func (c *Child) Engine() string { return c.engine }

// Ended is closed when the child is gone and every request was answered.
func (c *Child) Ended() <-chan struct{} { return c.ended }

// InputPath returns where the bytes named id must be for requests that have
// them as an input. The child can read the file and not change it on Linux;
// elsewhere give it a copy.
func (c *Child) InputPath(id tasks.ContentID) string {
	return filepath.Join(c.dir, inputDir, id.String())
}

// OpenOutput opens a spilled file. The child may still be able to change it:
// take a copy and believe only that.
func (c *Child) OpenOutput(f File) (io.ReadCloser, error) {
	name := spillName(f.number)
	info, err := c.outputs.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != f.Size {
		return nil, &fs.PathError{Op: "open", Path: f.Name, Err: errors.New("not the file that was announced")}
	}
	return c.outputs.Open(name)
}

// DropOutput removes a spilled file.
func (c *Child) DropOutput(f File) error {
	return c.outputs.Remove(spillName(f.number))
}

// connect makes the pipes and starts the process.
func (c *Child) connect(start func(*exec.Cmd) error) error {
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.stdin, c.frames = stdin, frameReader{r: bufio.NewReaderSize(stdout, pipeBufferBytes)}
	c.cmd.Stderr = &c.stderr
	return start(c.cmd)
}

// started reports whether there is a process to end.
func (c *Child) started() bool { return c.cmd.Process != nil }

// discard gives up a child whose process was not started.
func (c *Child) discard() {
	c.outputs.Close()
	close(c.ended)
}

// reset ends a process that failed to say hello, or forgets one that failed to
// start, before another try.
func (c *Child) reset() {
	if c.started() {
		killGroup(c.cmd.Process)
		c.stdin.Close()
		c.cmd.Wait()
		c.leaveCgroup()
	}
}

// leaveCgroup removes the cgroup of a process that has ended.
func (c *Child) leaveCgroup() {
	if c.cgroup != "" {
		endCgroup(c.cgroup)
		c.cgroup = ""
	}
}

// explain gives a layer that is not active a better reason.
func (c *Child) explain(name, why string) {
	for i := range c.layers {
		if l := &c.layers[i]; l.Name == name && !l.Active && why != "" {
			l.Why = why
		}
	}
}

// exchange sends one frame and takes the answer, before serve.
func (c *Child) exchange(kind frameKind, body func([]byte) []byte, answer frameKind, bound int) ([]byte, error) {
	if _, err := c.stdin.Write(appendFrame(nil, kind, body)); err != nil {
		return nil, err
	}
	return c.frames.next(answer, bound)
}

// killAfter kills the child after a while or when ctx ends, until release.
func (c *Child) killAfter(ctx context.Context, after time.Duration) (release func()) {
	timer := time.AfterFunc(after, func() { c.kill(causeStart) })
	stop := context.AfterFunc(ctx, func() { c.kill(causeClosed) })
	return func() {
		timer.Stop()
		stop()
	}
}

// serve begins to take requests.
func (c *Child) serve() {
	c.writer = newBatchWriter(c.stdin)
	c.timer = time.AfterFunc(time.Hour, c.checkTime)
	c.timer.Stop()
	go c.writer.run()
	go c.read()
}

// Submit sends a request. done is called once, with the outcome, from a
// goroutine that serves the whole child: it must not block. Requests run in the
// order of Submit. The error is tasks.ErrBusy when Window are in flight, or
// ErrEnded, after which Ended is closed soon; done is not called then.
func (c *Child) Submit(r Request, done func(Outcome)) (*Run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cause != causeNone || c.reaped:
		return nil, ErrEnded
	case len(c.runs) >= Window:
		return nil, tasks.ErrBusy
	}
	if err := c.writer.add(frameTask, taskMessage(r).append); err != nil {
		c.killLocked(causeNone) // it does not listen any more
		return nil, fmt.Errorf("%w: %w", ErrEnded, err)
	}
	run := &Run{child: c, done: done}
	c.runs = append(c.runs, run)
	if len(c.runs) == 1 {
		c.headSince, c.headHeld = time.Now(), 0
		if !c.armed {
			c.armed = true
			c.timer.Reset(c.limits.Wall)
		}
	}
	return run, nil
}

// Abandon says that nobody wants the outcome. If the run is still at it after
// a short grace, or when its turn comes, the child is killed. done is called in
// any case.
func (r *Run) Abandon() {
	c := r.child
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.abandoned.IsZero() {
		r.abandoned = time.Now()
		if !c.held.IsZero() && len(c.runs) > 0 && c.runs[0] == r {
			c.killLocked(causeAbandoned) // a held one would never end
			return
		}
		if len(c.runs) > 0 {
			c.armed = true
			c.timer.Reset(c.grace)
		}
	}
}

// checkTime kills the child when the running request is past its time, else
// looks again when that would be.
func (c *Child) checkTime() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.runs) == 0 || c.cause != causeNone || !c.held.IsZero() {
		c.armed = false
		return
	}
	head, now := c.runs[0], time.Now()
	deadline, why := c.headSince.Add(c.limits.Wall), causeWall
	if !head.abandoned.IsZero() {
		if grace := later(head.abandoned, c.headSince).Add(c.grace); grace.Before(deadline) {
			deadline, why = grace, causeAbandoned
		}
	}
	if wait := deadline.Sub(now); wait > 0 {
		c.timer.Reset(wait)
		return
	}
	c.killLocked(why) // before another run is the first
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// kill ends the process and remembers why; later causes are ignored.
func (c *Child) kill(why cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killLocked(why)
}

// killLocked is kill for callers that hold c.mu. What comes when the process is gone
// is not why it went.
func (c *Child) killLocked(why cause) {
	if c.reaped {
		return
	}
	if c.cause == causeNone {
		c.cause = why
	}
	killGroup(c.cmd.Process)
}

// Stop kills the child, waits until it is gone, and answers every request in
// flight. Spilled files can be opened until Close.
func (c *Child) Stop() {
	c.kill(causeClosed)
	if c.writer == nil {
		c.end() // nobody reads
	}
	<-c.ended
}

// Close is Stop, and lets go of the spilled files. It may be called more than once.
func (c *Child) Close() {
	c.Stop()
	c.outputs.Close()
}

// read answers requests until the child ends.
func (c *Child) read() {
	for {
		body, err := c.frames.next(frameResult, tasks.MaxResultBytes)
		var r resultMessage
		if err == nil {
			r, err = parseResult(body, c.limits)
		}
		if err == nil && !c.answer(r) {
			err = errFrame
		}
		if err != nil {
			if errors.Is(err, errFrame) && !errors.Is(err, io.ErrUnexpectedEOF) {
				c.kill(causeProtocol)
			}
			break
		}
	}
	c.end()
}

// answer gives the outcome to the oldest request; false when there is none.
func (c *Child) answer(r resultMessage) bool {
	c.mu.Lock()
	if len(c.runs) == 0 {
		c.mu.Unlock()
		return false
	}
	run := c.runs[0]
	c.runs = c.runs[:copy(c.runs, c.runs[1:])]
	r.Elapsed = max(0, r.Elapsed-c.headHeld)
	c.headSince, c.headHeld = time.Now(), 0
	if len(c.runs) > 0 && !c.runs[0].abandoned.IsZero() {
		c.armed = true
		c.timer.Reset(c.grace)
	}
	c.mu.Unlock()
	run.done(Outcome{
		State: r.State, Limit: r.Limit, ExitCode: int(r.ExitCode), Why: r.Why,
		Stdout: r.Stdout, LargeStdout: r.LargeStdout, Stderr: r.Stderr, Files: r.Files, Elapsed: r.Elapsed,
	})
	return true
}

// end reaps the process and answers what is left, once.
func (c *Child) end() {
	c.closing.Do(func() {
		c.mu.Lock()
		killGroup(c.cmd.Process)
		c.reaped = true // the number may be another process's from now on
		runs, ran := c.runs, c.ran(time.Now())
		c.runs = nil
		c.mu.Unlock()
		if c.writer != nil {
			c.writer.close()
			c.timer.Stop()
		}
		c.stdin.Close()
		c.cmd.Wait() // its error is in ProcessState
		c.leaveCgroup()
		for i, run := range runs {
			if i == 0 {
				run.done(c.death(run, ran))
			} else {
				run.done(Outcome{NotRun: true})
			}
		}
		close(c.ended)
	})
}
