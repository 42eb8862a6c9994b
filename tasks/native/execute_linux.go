package native

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// watchEvery is how often a command's memory, processes and files are counted. The
// kernel bounds each process and each directory by itself; this bounds their sum.
const watchEvery = 200 * time.Millisecond

// execute runs one command to its end.
func (b *Box) execute(run *Run) sandbox.Outcome {
	b.begun++
	dir, err := b.runtime.runDir(filepath.Join(b.cfg.Dir, runsDir, strconv.Itoa(b.begun)))
	if err != nil {
		return lost(err)
	}
	defer os.RemoveAll(dir)
	if err := b.layOut(dir, run.request.Inputs); err != nil {
		return lost(err)
	}
	stdin, err := b.stdin(run.request)
	if err != nil {
		return lost(err)
	}
	defer stdin.Close()
	text := make(chan struct{}, 2)
	over := func() { text <- struct{}{} }
	limits := b.cfg.Limits
	stdout := &capture{max: limits.StdoutBytes, path: filepath.Join(b.cfg.Dir, stdoutName+strconv.Itoa(b.begun)), over: over}
	stderr := &capture{max: limits.StderrBytes, over: over}
	defer stdout.close(false) // when it was not taken
	c, err := b.runtime.start(setup{args: run.request.Args, in: dir, limits: limits, stdin: stdin, stdout: stdout, stderr: stderr})
	if err != nil {
		return lost(err)
	}
	defer c.closeDirs()
	if !b.enter(run, c) {
		c.kill(causeAbandoned)
	}
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(ended, text)
	}()
	code, err := c.wait()
	close(ended)
	<-watched
	b.leave()
	o := b.outcome(c, code, err)
	o.Stderr, o.Elapsed = stderr.bytes(), c.elapsed()
	return b.withStdout(o, stdout)
}

// withStdout adds the standard output of a command that has ended.
func (b *Box) withStdout(o sandbox.Outcome, stdout *capture) sandbox.Outcome {
	size, err := stdout.close(o.ExitCode != tasks.NoExitCode)
	switch {
	case err != nil:
		b.dropAll(o.Spilled())
		return lost(fmt.Errorf("its standard output could not be kept: %w", err))
	case size > 0:
		o.LargeStdout = b.spillText(stdout.path, size)
	default:
		o.Stdout = stdout.bytes()
	}
	return o
}

func lost(err error) sandbox.Outcome {
	return sandbox.Outcome{State: tasks.StateLost, ExitCode: tasks.NoExitCode, Why: err.Error()}
}

// outcome describes how a command ended.
func (b *Box) outcome(c *command, code int, err error) sandbox.Outcome {
	switch {
	case c.cause != causeNone:
		return c.cause.outcome(b.cfg.Limits)
	case errors.Is(err, errNotStarted):
		o := lost(err)
		o.Unfit = true
		return o
	case err != nil:
		return lost(fmt.Errorf("bubblewrap: %w", err))
	}
	o := sandbox.Outcome{State: tasks.StateDone, ExitCode: code}
	if code != 0 {
		o.State, o.Why = tasks.StateFailed, fmt.Sprintf("exit code %d", code)
	}
	root, err := os.OpenRoot(filepath.Join("/proc/self/fd", strconv.Itoa(int(c.outputs.Fd()))))
	if err != nil {
		return lost(err)
	}
	out := &outputs{root: root, users: 1}
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		out.release()
	}()
	files, err := out.list(b)
	if f, ok := errors.AsType[*fault](err); ok {
		o = sandbox.Outcome{State: tasks.StateFailed, ExitCode: tasks.NoExitCode, Why: f.why}
		if f.limit != tasks.LimitNone {
			o.State, o.Limit = tasks.StateLimit, f.limit
		}
		return o
	}
	if err != nil {
		return sandbox.Outcome{State: tasks.StateFailed, ExitCode: tasks.NoExitCode, Why: "its output cannot be read: " + err.Error()}
	}
	b.inline(files)
	o.Files = files
	return o
}

// stdin opens what a command reads, which goes through a pipe: from a file of this
// user it could have its mode changed.
func (b *Box) stdin(r sandbox.Request) (io.ReadCloser, error) {
	if r.Stdin.IsZero() {
		return io.NopCloser(strings.NewReader("")), nil
	}
	f, err := os.Open(b.InputPath(r.Stdin))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, r.StdinSize), f}, nil
}

// watch keeps a command to its limits until it has ended.
func (c *command) watch(ended, text <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ended:
			return
		case <-text:
			c.kill(causeText)
		case <-timer.C:
			left := c.limits.Wall - c.elapsed()
			if left <= 0 {
				c.kill(causeWall)
			} else if why := c.exceeds(); why != causeNone {
				c.kill(why)
			}
			timer.Reset(min(max(left, readyEvery), watchEvery))
		}
	}
}

// exceeds returns the limit that the processes together exceed.
func (c *command) exceeds() cause {
	processes := append(sandbox.Descendants(c.cmd.Process.Pid), c.cmd.Process.Pid)
	if len(processes) > MaxProcesses+2 { // bubblewrap's own two
		return causeProcesses
	}
	var memory, mapped, files int64
	for _, pid := range processes {
		own, shared := residentBytes(pid)
		memory, mapped = memory+own, mapped+shared
	}
	for _, dir := range []*os.File{c.outputs, c.temp, c.shared} {
		var fs unix.Statfs_t
		if unix.Fstatfs(int(dir.Fd()), &fs) != nil {
			continue
		}
		files += int64(fs.Blocks-fs.Bfree) * fs.Bsize
		most := tasks.MaxOutputFiles
		if dir == c.outputs {
			most = c.limits.OutputFiles
		}
		if int64(fs.Files-fs.Ffree) > int64(most)+1 { // the directory itself
			return causeFiles
		}
	}
	memory += max(files, mapped) // a mapped file is both
	if memory > c.limits.MemoryBytes {
		return causeMemory
	}
	return causeNone
}

// residentBytes is the memory that a process has: its own, and that of files in
// memory and of mappings it shares with others.
func residentBytes(pid int) (own, shared int64) {
	text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status")) // it may have ended
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "RssAnon:":
			own = kib << 10
		case "RssShmem:":
			shared = kib << 10
		}
	}
	return own, shared
}
