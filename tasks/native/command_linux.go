package native

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// errNotStarted says that bubblewrap had made all of the sandbox and ended by itself
// without having run the program: its interpreter is missing, or it is for another
// processor. By the exit code, which it reports of programs that ran, this does not
// depend on its words.
var errNotStarted = errors.New("this machine cannot start")

// setup is what one command gets.
type setup struct {
	args   []string
	in     string // directory of inputs
	limits tasks.Limits
	stdin  io.Reader
	stdout *capture
	stderr *capture
}

// probeLimits are those of a command that does nothing.
var probeLimits = tasks.Limits{MemoryBytes: 64 << 20, Wall: probeWall, StdoutBytes: 1, StderrBytes: 1, OutputBytes: 1 << 20, OutputFiles: 1}

// command is one command in bubblewrap.
type command struct {
	cmd     *exec.Cmd
	first   int // process id of the first process inside
	pidfd   int // of first
	program string
	begun   bool   // its file system is there and its limits hold: only the program is missing
	leave   func() // its cgroup; nil: not there yet
	status  *bufio.Reader
	closers []io.Closer
	stderr  *capture
	copies  sync.WaitGroup // of the standard streams
	limits  tasks.Limits

	outputs, temp, shared *os.File // directories in memory

	mu      sync.Mutex
	cause   cause
	reaped  bool
	held    bool
	ran     time.Duration // without the time it was held
	running time.Time     // since when it runs
}

// Bounds of starting a command.
const (
	readyWall  = 30 * time.Second
	readyEvery = time.Millisecond
	endWall    = 10 * time.Second
)

// Descriptors of bubblewrap beyond the three standard ones.
const (
	fdStatus = 3 + iota
	fdBlock
	fdFilter
)

// arguments returns what bubblewrap is to do.
func arguments(s setup) []string {
	memory := s.limits.MemoryBytes
	a := []string{
		"--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session",
		"--cap-drop", "ALL", "--hostname", "guest", "--uid", "1000", "--gid", "1000",
		"--json-status-fd", strconv.Itoa(fdStatus), "--block-fd", strconv.Itoa(fdBlock), "--seccomp", strconv.Itoa(fdFilter),
		"--ro-bind", "/usr", "/usr",
	}
	for _, dir := range systemDirs[1:] {
		info, err := os.Lstat(dir)
		switch target, linkErr := os.Readlink(dir); {
		case err != nil:
		case linkErr == nil:
			a = append(a, "--symlink", target, dir)
		case info.IsDir():
			a = append(a, "--ro-bind", dir, dir)
		}
	}
	for _, file := range []string{"/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/mime.types"} {
		a = append(a, "--ro-bind-try", file, file)
	}
	private := func(dir string, size int64) { a = append(a, "--size", strconv.FormatInt(size, 10), "--tmpfs", dir) }
	a = append(a, "--proc", "/proc", "--dev", "/dev")
	private("/dev/shm", memory)
	private("/tmp", memory)
	private("/out", min(memory, s.limits.OutputBytes))
	a = append(a, "--ro-bind", s.in, "/in", "--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", "/tmp", "--")
	return append(a, s.args...)
}

// start starts a command. The caller waits for it, and closes its outputs.
func (r *Runtime) start(s setup) (*command, error) {
	status, statusIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	block, unblock, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, status.Close(), statusIn.Close())
	}
	filter, filterIn, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, status.Close(), statusIn.Close(), block.Close(), unblock.Close())
	}
	c := &command{program: s.args[0], status: bufio.NewReader(status), pidfd: -1, closers: []io.Closer{status, unblock}, stderr: s.stderr, limits: s.limits}
	c.cmd = exec.Command(r.bwrap, arguments(s)...)
	c.cmd.Env, c.cmd.Dir = environment(), "/"
	streams, err := c.connect(r, s)
	c.cmd.ExtraFiles = []*os.File{statusIn, block, filter}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: r.user}
	if err == nil {
		_, err = filterIn.Write(r.filter) // it fits the pipe
	}
	err = errors.Join(err, filterIn.Close())
	if err == nil {
		err = r.launcher.StartProcess(c.cmd)
	}
	for _, f := range append(streams, c.cmd.ExtraFiles...) {
		f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start bubblewrap: %w", err), c.close())
	}
	if err = c.prepare(r); err == nil {
		c.running, c.begun = time.Now(), true
		_, err = unblock.Write([]byte{0})
	}
	if err != nil {
		c.kill(causeClosed)
		_, waitErr := c.wait()
		c.closeDirs()
		if waitErr != nil && c.complaint() != "" {
			err = waitErr
		}
		return nil, explain(err)
	}
	return c, nil
}

// connect gives the command its standard streams, which are pipes that its user may
// open again by /dev/stdin and so on. The caller closes the files it returns when the
// command was started, or was not.
func (c *command) connect(r *Runtime, s setup) (theirs []*os.File, err error) {
	pipe := func(reads bool) (their, own *os.File) {
		from, to, pipeErr := os.Pipe()
		if pipeErr != nil {
			err = errors.Join(err, pipeErr)
			return nil, nil
		}
		if their, own = to, from; reads {
			their, own = from, to
		}
		if r.user != nil {
			err = errors.Join(err, their.Chown(int(r.user.Uid), int(r.user.Gid)))
		}
		theirs = append(theirs, their)
		return their, own
	}
	stdin, in := pipe(true)
	stdout, out := pipe(false)
	stderr, fault := pipe(false)
	if in != nil {
		c.closers = append(c.closers, in)
	}
	for _, f := range []*os.File{out, fault} {
		if f != nil {
			c.closers = append(c.closers, f)
		}
	}
	if err != nil {
		return theirs, err
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = stdin, stdout, stderr
	c.copies.Go(func() {
		if s.stdin != nil {
			io.Copy(in, s.stdin) // the command may not want all of it
		}
		in.Close()
	})
	c.copies.Go(func() { io.Copy(s.stdout, out) })
	c.copies.Go(func() { io.Copy(s.stderr, fault) })
	return theirs, nil
}

// prepare waits until the first process inside has its file system, and limits it
// before anything else begins.
func (c *command) prepare(r *Runtime) error {
	late := time.AfterFunc(readyWall, func() { c.kill(causeClosed) })
	defer late.Stop()
	line, err := c.status.ReadSlice('\n')
	var report struct {
		Child int `json:"child-pid"`
	}
	if err == nil {
		err = json.Unmarshal(line, &report)
	}
	if err != nil || report.Child <= 0 {
		return fmt.Errorf("bubblewrap reports no process: %w", err)
	}
	c.first = report.Child
	pidfd, err := unix.PidfdOpen(c.first, 0)
	if err != nil {
		return fmt.Errorf("pidfd: %w", err)
	}
	c.mu.Lock()
	c.pidfd = pidfd
	c.mu.Unlock()
	sandbox.IdlePriority(c.cmd.Process.Pid)
	sandbox.IdlePriority(c.first)
	if err := asUser(r.user, c.setLimits); err != nil {
		return err
	}
	if c.leave, err = r.launcher.PlaceInCgroup(c.first, c.limits.MemoryBytes, MaxProcesses+1); err != nil {
		return err
	}
	return c.openDirs()
}

// setLimits sets the limits of each process inside.
func (c *command) setLimits() error {
	memory := uint64(c.limits.MemoryBytes)
	limits := map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 1024, unix.RLIMIT_MEMLOCK: 0, unix.RLIMIT_MSGQUEUE: 0,
		unix.RLIMIT_NICE: 0, unix.RLIMIT_RTPRIO: 0, unix.RLIMIT_DATA: memory,
		unix.RLIMIT_FSIZE: uint64(max(c.limits.OutputBytes, c.limits.MemoryBytes)),
	}
	if sandbox.CountsProcessesApart() {
		limits[unix.RLIMIT_NPROC] = MaxProcesses
	}
	for resource, most := range limits {
		if err := unix.Prlimit(c.first, resource, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
			return fmt.Errorf("limit %d: %w", resource, err)
		}
	}
	return nil
}

// asUser runs f on a thread of its own with the user's identity; nil: this one. Root
// in a container may lack the privilege to limit others.
func asUser(user *syscall.Credential, f func() error) error {
	if user == nil {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		uid, gid := uintptr(user.Uid), uintptr(user.Gid)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, gid, gid, gid); errno != 0 {
			result <- errno
		} else if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			result <- errno
		} else {
			result <- f()
		}
	}()
	return <-result
}

// openDirs opens the directories in memory, which keeps /out after all processes
// have ended. The first process has them when its root is a file system of its own
// with /out in it: before that it was in this machine's, or in one with nothing
// but bubblewrap's two places.
func (c *command) openDirs() error {
	root := filepath.Join("/proc", strconv.Itoa(c.first), "root")
	var host unix.Stat_t
	if err := unix.Stat("/", &host); err != nil {
		return err
	}
	for begin := time.Now(); ; time.Sleep(readyEvery) {
		var its, out unix.Stat_t
		err := unix.Stat(root+"/.", &its)
		if err == nil && (its.Dev != host.Dev || its.Ino != host.Ino) {
			if err = unix.Stat(root+"/out/.", &out); err == nil {
				break
			}
		}
		if c.stopped() || time.Since(begin) > readyWall {
			return fmt.Errorf("the command's file system is not there: %w", err)
		}
	}
	for name, f := range map[string]**os.File{"out": &c.outputs, "tmp": &c.temp, "dev/shm": &c.shared} {
		var err error
		if *f, err = os.OpenFile(filepath.Join(root, name), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0); err != nil {
			return err
		}
	}
	return nil
}

// stopped reports whether the process was killed, or has ended by itself.
func (c *command) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause != causeNone || c.gone()
}

// gone reports whether the first process inside has ended, and with it all others.
func (c *command) gone() bool {
	if c.pidfd < 0 {
		return false
	}
	poll := []unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// hold stops the processes; kill ends them even so.
func (c *command) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held || c.reaped {
		return
	}
	sandbox.StopTree(c.cmd.Process)
	c.held, c.ran = true, c.ran+time.Since(c.running)
}

func (c *command) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return
	}
	c.held, c.running = false, time.Now()
	if !c.reaped {
		sandbox.ContinueTree(c.cmd.Process)
	}
}

// elapsed is how long it ran.
func (c *command) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held || c.running.IsZero() {
		return c.ran
	}
	return c.ran + time.Since(c.running)
}

// kill ends all processes: those inside die with bubblewrap.
func (c *command) kill(why cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == causeNone {
		c.cause = why
	}
	if c.reaped {
		return
	}
	// The first process inside is in bubblewrap's group until it can die with it.
	syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	if c.pidfd >= 0 {
		unix.PidfdSendSignal(c.pidfd, syscall.SIGKILL, nil, 0)
	}
}

// wait waits until all processes are gone and returns the exit code. The error says
// why there is none.
func (c *command) wait() (int, error) {
	var exit struct {
		Code *int `json:"exit-code"`
	}
	for line, err := []byte(nil), error(nil); err == nil; line, err = c.status.ReadSlice('\n') {
		json.Unmarshal(line, &exit)
	}
	// Only then may the number of the process become another's.
	var info unix.Siginfo
	for unix.Waitid(unix.P_PID, c.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	c.mu.Lock()
	c.reaped = true
	c.mu.Unlock()
	err := c.cmd.Wait()
	for begin := time.Now(); c.pidfd >= 0 && !c.gone() && time.Since(begin) < endWall; time.Sleep(readyEvery) {
	}
	c.copies.Wait() // all who could write are gone
	c.close()
	switch _, exited := errors.AsType[*exec.ExitError](err); {
	case exit.Code != nil:
		return *exit.Code, nil
	case exited && c.cmd.ProcessState.Exited() && c.begun:
		return 0, fmt.Errorf("%w %q: %s", errNotStarted, c.program, cmp.Or(c.complaint(), err.Error()))
	case c.complaint() != "":
		return 0, errors.New(c.complaint())
	case err == nil:
		err = errors.New("bubblewrap ended without a word")
	}
	return 0, err
}

// complaint is what bubblewrap wrote last.
func (c *command) complaint() string {
	lines := bytes.Split(bytes.TrimSpace(c.stderr.bytes()), []byte("\n"))
	last, ok := strings.CutPrefix(string(lines[len(lines)-1]), "bwrap: ")
	if !ok {
		return ""
	}
	return last
}

func (c *command) close() (err error) {
	for _, f := range c.closers {
		if closeErr := f.Close(); !errors.Is(closeErr, os.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
	}
	c.closers = nil
	if c.leave != nil {
		c.leave()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
	return err
}

func (c *command) closeDirs() {
	for _, f := range []*os.File{c.outputs, c.temp, c.shared} {
		if f != nil {
			f.Close()
		}
	}
}
