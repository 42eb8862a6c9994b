package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gotong/tasks"
)

// Commands of the test binary: see TestMain.
const (
	doomedParentCommand = "doomed-parent"
	probeCommand        = "native-probe"
)

func TestChildKilledFromOutside(t *testing.T) {
	c := start(t, "probe", nil)
	outcomes := make(chan Outcome, 2)
	for range 2 {
		if _, err := c.Submit(Request{Args: []string{"spin"}}, func(o Outcome) { outcomes <- o }); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(c.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if o := <-outcomes; o.State != tasks.StateLost || !strings.Contains(o.Why, "killed") {
		t.Errorf("%+v, want lost", o)
	}
	if o := <-outcomes; !o.NotRun {
		t.Errorf("%+v, want NotRun", o)
	}
	<-c.Ended()
	if _, err := c.Submit(Request{}, func(Outcome) {}); !errors.Is(err, ErrEnded) {
		t.Errorf("submit to a dead child: %v", err)
	}
}

// TestChildCrashes stands for a guest that breaks the engine.
func TestChildCrashes(t *testing.T) {
	c := start(t, "probe", nil)
	out := make(chan Outcome, 1)
	if _, err := c.Submit(Request{Args: []string{"spin"}}, func(o Outcome) { out <- o }); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(c.cmd.Process.Pid, syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	if o := <-out; o.State != tasks.StateFailed || !strings.Contains(o.Why, "crashed") {
		t.Errorf("%+v, want failed", o)
	}
}

var testCommands = map[string]func(string) int{doomedParentCommand: doomedParent, probeCommand: nativeProbe}

// doomedParent starts a child, sets it an endless task, says its number, and
// waits to be killed.
func doomedParent(dir string) int {
	l, err := OpenLauncher(Options{})
	if err != nil {
		return 1
	}
	module, err := os.ReadFile("testdata/probe.wasm")
	if err != nil {
		return 1
	}
	c, err := l.Start(context.Background(), Config{Dir: dir, Module: module, Limits: testLimits()})
	if err != nil {
		return 1
	}
	if _, err := c.Submit(Request{Args: []string{"spin"}}, func(Outcome) {}); err != nil {
		return 1
	}
	fmt.Println(c.cmd.Process.Pid)
	select {}
}

func TestChildDiesWithItsParent(t *testing.T) {
	cmd := exec.Command(executable, doomedParentCommand, t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	cmd.Process.Kill()
	cmd.Wait()
	waitGone(t, child)
}

// waitGone waits until the process behind a pidfd has ended.
func waitGone(t *testing.T, pidfd int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 5000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil {
			t.Fatal("the process still lives", err)
		}
		return
	}
}

// TestClosedLauncherKills: the parent-death signal belongs to its thread.
func TestClosedLauncherKills(t *testing.T) {
	l, err := OpenLauncher(Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Start(context.Background(), Config{Dir: t.TempDir(), Module: guestModule(t, "probe"), Limits: testLimits()})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	select {
	case <-c.Ended():
	case <-time.After(10 * time.Second):
		t.Error("the child outlives the thread that started it")
	}
	c.Close()
}

// TestInheritedDescriptors leaves a file open as a careless starter of the peer
// would.
func TestInheritedDescriptors(t *testing.T) {
	fd, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c := start(t, "noop", nil)
	dir := fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed since
		}
		kind, _, _ := strings.Cut(target, ":")
		// The Go runtime looks up how many processors the group may use.
		quota := strings.HasPrefix(target, "/sys/fs/cgroup/")
		if kind != "pipe" && kind != "anon_inode" && !quota && !strings.HasPrefix(target, c.dir+"/") {
			t.Errorf("descriptor %s of the child is %s", entry.Name(), target)
		}
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.cmd.Process.Pid))
	if err != nil || strings.TrimSpace(string(score)) != oomFirst {
		t.Errorf("oom_score_adj is %s (%v)", score, err)
	}
}

func TestScheduling(t *testing.T) {
	c := start(t, "noop", nil)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil || attr.Policy != unix.SCHED_IDLE || attr.Nice != niceLeast {
			t.Errorf("thread %d has %+v (%v), want the idle class and nice %d", tid, attr, err, niceLeast)
		}
	}
	for _, file := range []string{"environ", "cmdline"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", c.cmd.Process.Pid, file))
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{"cmdline": "gotong\x00sandbox-child\x00inner\x00"}[file]; string(b) != want {
			t.Errorf("%s is %q, want %q", file, b, want)
		}
	}
}

// nativeProbe stands for a guest that took over its child: it locks itself down
// as a child does and then tries what it should not.
func nativeProbe(dir string) int {
	if len(os.Args) == 3 {
		unix.Setpgid(0, 0)
		fmt.Println(firstStage(probeCommand, dir, innerStage))
		return 1
	}
	layers, seal := lockDown(setup{Duty: dutyRun, Dir: dir, Limits: testLimits()})
	if err := refuse(layers); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(mapCode("code before sealing"))
	if err := seal(); err != nil {
		fmt.Println(err)
		return 1
	}
	for _, line := range nativeAttempts(dir) {
		fmt.Println(line)
	}
	return 0
}

func attempt(name string, err error) string {
	if err == nil {
		return name + ": OPEN"
	}
	return name + ": refused"
}

func mapCode(name string) string {
	_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	return attempt(name, err)
}

func nativeAttempts(dir string) []string {
	var lines []string
	try := func(name string, err error) { lines = append(lines, attempt(name, err)) }
	write := func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
	try("write out", write(filepath.Join(dir, outputDir, "1")))
	try("remove out", os.Remove(filepath.Join(dir, outputDir, "1")))
	_, err := os.ReadFile(filepath.Join(dir, inputDir, "given"))
	try("read in", err)

	try("write in", write(filepath.Join(dir, inputDir, "given")))
	try("truncate in", os.Truncate(filepath.Join(dir, inputDir, "given"), 0))
	try("chmod in", os.Chmod(filepath.Join(dir, inputDir, "given"), 0o777))
	try("create in", write(filepath.Join(dir, inputDir, "new")))
	try("mkdir out", os.Mkdir(filepath.Join(dir, outputDir, "d"), 0o700))
	try("symlink out", os.Symlink("/etc/passwd", filepath.Join(dir, outputDir, "l")))
	try("link out", os.Link(filepath.Join(dir, inputDir, "given"), filepath.Join(dir, outputDir, "l")))
	try("write staging", write(filepath.Join(dir, "x")))
	_, err = os.ReadFile("/etc/passwd")
	try("read passwd", err)
	_, err = os.ReadFile("/proc/self/environ")
	try("read proc", err)
	_, err = os.ReadDir("/")
	try("list root", err)
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	try("inet socket", err)
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("unix socket", err)
	_, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("socketpair", err)
	try("exec", syscall.Exec(executable, []string{"x"}, nil))
	_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	try("fork", errnoOrNil(errno))
	try("signal parent", unix.Kill(os.Getppid(), 0))
	try("signal self's group", unix.Kill(0, 0))
	try("thread signal to parent", unix.Tgkill(os.Getppid(), os.Getppid(), 0))
	try("ptrace", unix.PtraceAttach(os.Getppid()))
	_, err = unix.PidfdOpen(os.Getppid(), 0)
	try("pidfd", err)
	_, err = unix.ProcessVMReadv(os.Getppid(), nil, nil, 0)
	try("read memory of another", err)
	_, err = unix.MemfdCreate("x", 0)
	try("memfd", err)
	_, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	try("io_uring", errnoOrNil(errno))
	try("unshare", unix.Unshare(unix.CLONE_NEWUSER))
	try("mount", unix.Mount("none", dir, "tmpfs", 0, ""))
	try("raise limit", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1024}))
	try("nice", unix.Setpriority(unix.PRIO_PROCESS, 0, 0))
	try("setuid", unix.Setuid(0))
	lines = append(lines, mapCode("new code"))
	data, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		err = unix.Mprotect(data, unix.PROT_READ|unix.PROT_EXEC)
	}
	try("data to code", err)
	return lines
}

func errnoOrNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// TestTakenOverChild compares what a native program in a child's place can do
// with the short list of what it may.
func TestTakenOverChild(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{inputDir, outputDir, codeDir} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	given := filepath.Join(dir, inputDir, "given")
	if err := os.WriteFile(given, []byte("given"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(executable, probeCommand, dir).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	open := map[string]bool{"code before sealing": true, "write out": true, "remove out": true, "read in": true}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < 30 {
		t.Errorf("only %d attempts: %s", len(lines), out)
	}
	for _, line := range lines {
		name, verdict, _ := strings.Cut(line, ": ")
		if want := map[bool]string{true: "OPEN", false: "refused"}[open[name]]; verdict != want {
			t.Errorf("%s, want %s", line, want)
		}
	}
	if b, err := os.ReadFile(given); err != nil || string(b) != "given" {
		t.Errorf("the input is now %q (%v)", b, err)
	}
}
