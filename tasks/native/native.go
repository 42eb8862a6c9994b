package native

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// MaxProcesses is how many processes and threads a command may have.
const MaxProcesses = 512

// ErrUnavailable says that this machine cannot run commands safely.
var ErrUnavailable = fmt.Errorf("%w for native commands", tasks.ErrSandbox)

// Config says what a Box runs.
type Config struct {
	// Dir is the staging directory. It must exist, empty, and be used for nothing
	// else; the caller removes it after Box.Close.
	Dir string
	// Limits hold for each command. They must be valid.
	Limits tasks.Limits
}

// searchPath is where commands are looked for, here and by the command itself.
var searchPath = []string{"/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"}

// environment is all that a command finds in its.
func environment() []string {
	return []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "TZ=UTC", "USER=guest", "LOGNAME=guest"}
}

// Find returns an error that wraps tasks.ErrUnfit and says so when this machine has
// no command of that name. What counts is what the command itself would find: a
// program that lies, with all links followed, where it can see it.
func Find(name string) error {
	if strings.Contains(name, "/") {
		switch clean := path.Clean(name); {
		case !path.IsAbs(clean):
			return fmt.Errorf("%w: command %q: give a name or an absolute path", tasks.ErrUnfit, name)
		case strings.HasPrefix(clean, "/in/"):
			return fmt.Errorf("%w: command %q: inputs are no programs; let one run it, such as: sh %s", tasks.ErrUnfit, name, name)
		case executable(clean):
			return nil
		}
		return fmt.Errorf("%w: this machine has no command %q", tasks.ErrUnfit, name)
	}
	for _, dir := range searchPath {
		if executable(path.Join(dir, name)) {
			return nil
		}
	}
	return fmt.Errorf("%w: this machine has no command %q", tasks.ErrUnfit, name)
}

// systemDirs are those directories at the root that a command sees, where the
// machine has them.
var systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

func visible(name string) bool {
	for _, dir := range systemDirs {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

// executable reports whether a command sees a program of that name, which lies in
// a system directory. A link to elsewhere leads nowhere for a command.
func executable(name string) bool {
	if !visible(name) {
		return false
	}
	target, err := filepath.EvalSymlinks(name)
	if err != nil || !visible(target) {
		return false
	}
	info, err := os.Stat(target)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Run is one request in flight.
type Run struct {
	box       *Box
	request   sandbox.Request
	done      func(sandbox.Outcome)
	abandoned bool // guarded by Box.mu
}

// Abandon says that nobody wants the outcome: the command is killed, or not begun.
// The done function of Submit is called in any case.
func (r *Run) Abandon() {
	b := r.box
	b.mu.Lock()
	defer b.mu.Unlock()
	r.abandoned = true
	if len(b.runs) > 0 && b.runs[0] == r {
		b.killLocked(causeAbandoned)
	}
}

// Box runs commands one after another. Its methods may be called at any time from
// anywhere.
type Box struct {
	runtime *Runtime
	cfg     Config
	ended   chan struct{}

	mu      sync.Mutex
	change  *sync.Cond
	runs    []*Run // in order; the first is running
	command *command
	held    bool
	closed  bool

	spills  map[uint64]*spill
	spilled uint64 // number of the last
	begun   int    // commands so far
}

// spill is an output that was not taken yet.
type spill struct {
	name string
	size int64
	from *outputs // nil: name is the path of a standard output
}

// Open returns a box without a command. The caller closes it.
func (r *Runtime) Open(cfg Config) (*Box, error) {
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	for _, name := range []string{contentsDir, runsDir} {
		if err := os.Mkdir(filepath.Join(cfg.Dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("staging directory: %w", err)
		}
	}
	b := &Box{runtime: r, cfg: cfg, ended: make(chan struct{}), spills: make(map[uint64]*spill)}
	b.change = sync.NewCond(&b.mu)
	go b.serve()
	return b, nil
}

// Names below the staging directory.
const (
	contentsDir = "contents" // inputs by their hash
	runsDir     = "runs"     // for each command a directory of its own
	stdoutName  = "stdout-"  // and its number: a large standard output
)

// Engine names what runs commands here.
func (b *Box) Engine() string { return Engine() }

// Ended is closed when every request was answered after Close.
func (b *Box) Ended() <-chan struct{} { return b.ended }

// InputPath returns where the bytes named id must be for requests that have them
// as an input.
func (b *Box) InputPath(id tasks.ContentID) string {
	return filepath.Join(b.cfg.Dir, contentsDir, id.String())
}

// Submit asks for one command, as sandbox.Child.Submit does for a guest.
func (b *Box) Submit(r sandbox.Request, done func(sandbox.Outcome)) (*Run, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, sandbox.ErrEnded
	case len(b.runs) >= sandbox.Window:
		return nil, tasks.ErrBusy
	case len(r.Args) == 0:
		return nil, errors.New("no command")
	}
	run := &Run{box: b, request: r, done: done}
	b.runs = append(b.runs, run)
	b.change.Broadcast()
	return run, nil
}

// serve runs what is asked for until the box is closed.
func (b *Box) serve() {
	defer close(b.ended)
	for {
		run := b.next()
		if run == nil {
			return
		}
		o := b.execute(run)
		b.mu.Lock()
		b.runs = b.runs[1:]
		b.mu.Unlock()
		run.done(o)
	}
}

// next waits for the next request; nil when the box was closed and all were
// answered.
func (b *Box) next() *Run {
	b.mu.Lock()
	for !b.closed && (len(b.runs) == 0 || (b.held && !b.runs[0].abandoned)) {
		b.change.Wait()
	}
	if !b.closed {
		defer b.mu.Unlock()
		return b.runs[0]
	}
	left := b.runs
	b.runs = nil
	b.mu.Unlock()
	for _, run := range left {
		run.done(sandbox.Outcome{NotRun: true})
	}
	return nil
}

// Hold stops the command where it is, and begins none, until Resume. Time that
// passes meanwhile counts in no limit.
func (b *Box) Hold() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.held = true
	if b.command != nil {
		b.command.hold()
	}
	return true
}

// Resume lets the command go on.
func (b *Box) Resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.held {
		return
	}
	b.held = false
	if b.command != nil {
		b.command.resume()
	}
	b.change.Broadcast()
}

// Close kills the command, waits until it is gone, and answers every request. It
// may be called more than once.
func (b *Box) Close() {
	b.mu.Lock()
	b.closed = true
	b.killLocked(causeClosed)
	b.change.Broadcast()
	b.mu.Unlock()
	<-b.ended
}

// killLocked ends the command that runs; b.mu is held.
func (b *Box) killLocked(why cause) {
	b.change.Broadcast()
	if b.command != nil {
		b.command.kill(why)
	}
}

// enter makes c the command that runs; false when it should not.
func (b *Box) enter(run *Run, c *command) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || run.abandoned {
		return false
	}
	b.command = c
	if b.held {
		c.hold()
	}
	return true
}

func (b *Box) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.command = nil
}

// OpenOutput opens an output of an outcome. Nothing can change it any more.
func (b *Box) OpenOutput(f sandbox.File) (io.ReadCloser, error) {
	b.mu.Lock()
	s := b.spills[f.Number()]
	b.mu.Unlock()
	if s == nil {
		return nil, os.ErrNotExist
	}
	if s.from == nil {
		return os.Open(s.name)
	}
	return s.from.root.Open(s.name)
}

// DropOutput lets go of an output.
func (b *Box) DropOutput(f sandbox.File) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.spills[f.Number()]
	if s == nil {
		return os.ErrNotExist
	}
	delete(b.spills, f.Number())
	if s.from == nil {
		return os.Remove(s.name)
	}
	return s.from.release()
}

func (b *Box) dropAll(files []sandbox.File) {
	for _, f := range files {
		b.DropOutput(f)
	}
}

// spill notes an output that stays where it is until it is dropped.
func (b *Box) spill(name string, size int64, from *outputs) sandbox.File {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spilled++
	from.users++
	b.spills[b.spilled] = &spill{name, size, from}
	return sandbox.SpilledFile(name, size, b.spilled)
}

// spillText notes a standard output that stays where it is until it is dropped.
func (b *Box) spillText(path string, size int64) sandbox.File {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spilled++
	b.spills[b.spilled] = &spill{name: path, size: size}
	return sandbox.SpilledFile("", size, b.spilled)
}
