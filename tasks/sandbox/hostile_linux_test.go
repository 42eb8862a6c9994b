package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gotong/tasks"
)

// Commands of the test binary: see TestMain.
const (
	doomedParentCommand = "doomed-parent"
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

var testCommands = map[string]func(string) int{doomedParentCommand: doomedParent, layersCommand: layersWithout}

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
		n, err := unix.Poll(fds, 120_000)
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
	onMain := make(chan bool)
	l.requests <- func() { onMain <- onMainThread() }
	if <-onMain {
		t.Error("children are started on the main thread, which never ends")
	}
	c, err := l.Start(context.Background(), Config{Dir: t.TempDir(), Module: guestModule(t, "probe"), Limits: testLimits()})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	select {
	case <-c.Ended():
	case <-time.After(2 * time.Minute):
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
		if kind != "pipe" && kind != "anon_inode" && !quota && !isStaged(c, filepath.Join(dir, entry.Name())) {
			t.Errorf("descriptor %s of the child is %s", entry.Name(), target)
		}
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.cmd.Process.Pid))
	if err != nil || strings.TrimSpace(string(score)) != oomFirst {
		t.Errorf("oom_score_adj is %s (%v)", score, err)
	}
}

// isStaged reports whether path is one of the directories of the staging directory,
// which has another name where the child has a root directory of its own.
func isStaged(c *Child, path string) bool {
	got, err := os.Stat(path)
	if err != nil {
		return false
	}
	for _, name := range []string{inputDir, outputDir, codeDir} {
		if want, err := os.Stat(filepath.Join(c.dir, name)); err == nil && os.SameFile(got, want) {
			return true
		}
	}
	return false
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

// probe has a child without some layers try what it should not, and returns what
// got through.
func probe(t *testing.T, without ...string) (through []string, attempts []Attempt) {
	t.Helper()
	home := t.TempDir()
	key := filepath.Join(home, "node.key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, attempts, err := openLauncher(t).Probe(context.Background(), t.TempDir(), Targets{
		Process: os.Getpid(), Key: key, Dir: home, Socket: filepath.Join(home, "socket"),
		Address: uint64(uintptr(unsafe.Pointer(&probed))), Without: without,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attempts {
		if a.How == "" {
			t.Errorf("%s: no reason", a.Name)
		}
		if !a.Refused {
			through = append(through, a.Name)
		}
	}
	if list, err := os.ReadDir(home); err != nil || len(list) != 1 {
		t.Errorf("%v (%v) is left", list, err)
	}
	return through, attempts
}

// probed is what a child tries to read in this process.
var probed = byte('p')

// TestTakenOverChild stands for a guest that took over its child.
func TestTakenOverChild(t *testing.T) {
	through, attempts := probe(t)
	if len(through) != 0 || len(attempts) < 75 {
		t.Errorf("%d attempts, these got through: %q", len(attempts), through)
	}
}

// TestProbesNotice leaves layers out, and wants the attempts that they stop to be
// reported as through: else the test of the sandbox could not fail.
func TestProbesNotice(t *testing.T) {
	for _, c := range []struct {
		without []string
		through []string
	}{
		{[]string{LayerNoExec}, []string{"executable memory", "make memory executable"}},
		{[]string{LayerNamespaces, LayerLandlock, LayerSeccomp, LayerNoExec, LayerDump}, []string{
			"fork", "read the node key", "write the data directory", "list the root directory", "TCP socket", "unix socket",
			"executable memory", "file without a name", "exec",
		}},
		{[]string{LayerSeccomp, LayerNoExec}, []string{"fork", "TCP socket", "unix socket", "file without a name", "shared memory",
			"lock that passes on priority", "let others of the same user look in"}},
		{[]string{LayerMounts, LayerLandlock, LayerSeccomp}, []string{"read the node key", "write the data directory", "symbolic link to the key"}},
		{[]string{LayerLandlock, LayerScope}, nil},
	} {
		if slices.Contains(c.without, LayerScope) {
			if _, _, err := openLauncher(t).Probe(context.Background(), t.TempDir(), Targets{Without: c.without}); err == nil {
				t.Errorf("%q could be left out", c.without)
			}
			continue
		}
		through, _ := probe(t, c.without...)
		for _, want := range c.through {
			if !slices.Contains(through, want) {
				t.Errorf("without %q: %q did not get through, only %q", c.without, want, through)
			}
		}
	}
}
