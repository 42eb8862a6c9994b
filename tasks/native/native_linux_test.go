package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a box in a directory of its own. The test is skipped where
// bubblewrap does not work, unless REQUIRE_BWRAP is set.
func open(t *testing.T, change func(*tasks.Limits)) *Box {
	t.Helper()
	launcher, err := sandbox.OpenLauncher(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { launcher.Close() })
	r, err := Probe(context.Background(), launcher)
	if err != nil {
		if os.Getenv("REQUIRE_BWRAP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	limits := tasks.DefaultLimits()
	limits.MemoryBytes, limits.Wall, limits.OutputBytes, limits.StdoutBytes = 256<<20, time.Minute, 8<<20, 8<<20
	if change != nil {
		change(&limits)
	}
	b, err := r.Open(Config{Dir: t.TempDir(), Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func run(t *testing.T, b *Box, r sandbox.Request) sandbox.Outcome {
	t.Helper()
	done := make(chan sandbox.Outcome, 1)
	if _, err := b.Submit(r, func(o sandbox.Outcome) { done <- o }); err != nil {
		t.Fatal(err)
	}
	return <-done
}

func sh(script string) sandbox.Request { return sandbox.Request{Args: []string{"sh", "-c", script}} }

// stage puts bytes where requests find them.
func stage(t *testing.T, b *Box, data string) tasks.ContentID {
	t.Helper()
	id := tasks.ContentID(blake3.Sum256([]byte(data)))
	if err := os.WriteFile(b.InputPath(id), []byte(data), 0o400); err != nil {
		t.Fatal(err)
	}
	return id
}

func text(t *testing.T, b *Box, f sandbox.File) string {
	t.Helper()
	if !f.Spilled() {
		return string(f.Data)
	}
	r, err := b.OpenOutput(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.DropOutput(f); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestBwrapCommand(t *testing.T) {
	b := open(t, nil)
	in, stdin := stage(t, b, "of the input"), stage(t, b, "of standard input\n")
	o := run(t, b, sandbox.Request{
		Args:   []string{"sh", "-c", `cat; cat "/in/a b/$1" >/out/"$1"; mkdir -p /out/d; head -c 1000000 /dev/zero >/out/d/large; echo no >&2; exit 3`, "sh", "ü"},
		Inputs: []tasks.Input{{Name: "a b/ü", Content: in, Size: 12}}, Stdin: stdin, StdinSize: 18,
	})
	if o.State != tasks.StateFailed || o.ExitCode != 3 || string(o.Stdout) != "of standard input\n" || string(o.Stderr) != "no\n" {
		t.Errorf("%+v", o)
	}
	if len(o.Files) != 2 || o.Files[0].Name != "d/large" || !o.Files[0].Spilled() || o.Files[1].Name != "ü" || o.Files[1].Spilled() {
		t.Fatalf("%+v", o.Files)
	}
	if got := text(t, b, o.Files[1]); got != "of the input" {
		t.Errorf("%q", got)
	}
	if got := text(t, b, o.Files[0]); len(got) != 1000000 {
		t.Errorf("%d bytes", len(got))
	}
	if _, err := b.OpenOutput(o.Files[0]); err == nil {
		t.Error("an output that was dropped can be opened")
	}
	if o := run(t, b, sh("true; : </dev/stdin")); o.State != tasks.StateDone || o.ExitCode != 0 || len(o.Files) != 0 || o.Elapsed <= 0 {
		t.Errorf("%+v", o)
	}
}

func TestBwrapLargeStdout(t *testing.T) {
	b := open(t, nil)
	for _, n := range []int{tasks.InlineStdoutBytes, 5_000_000} {
		o := run(t, b, sh(fmt.Sprintf("yes | head -c %d; exit 3", n)))
		got := string(o.Stdout)
		if o.LargeStdout.Spilled() != (n > tasks.InlineStdoutBytes) || o.ExitCode != 3 {
			t.Fatalf("%d bytes: %s %s, %d in the outcome, %+v", n, o.State, o.Why, len(got), o.LargeStdout)
		}
		if o.LargeStdout.Spilled() {
			got += text(t, b, o.LargeStdout)
		}
		if got != strings.Repeat("y\n", n/2) {
			t.Errorf("%d bytes came as %d", n, len(got))
		}
	}
	if o := run(t, b, sh("yes")); o.Limit != tasks.LimitStdout || o.LargeStdout.Spilled() || len(o.Stdout) != tasks.InlineStdoutBytes {
		t.Errorf("without end: %s %s, %d bytes, %+v", o.State, o.Limit, len(o.Stdout), o.LargeStdout)
	}
	if left, _ := filepath.Glob(filepath.Join(b.cfg.Dir, stdoutName+"*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBwrapEnvironment(t *testing.T) {
	t.Setenv("SECRET", "x")
	b := open(t, nil)
	o := run(t, b, sandbox.Request{Args: []string{"env"}})
	got := strings.Split(strings.TrimSpace(string(o.Stdout)), "\n")
	for _, line := range got {
		if name, _, _ := strings.Cut(line, "="); !strings.Contains("PATH HOME TMPDIR LANG TZ USER LOGNAME PWD", name) {
			t.Errorf("the environment has %q", line)
		}
	}
	if len(got) < 6 {
		t.Errorf("%q", got)
	}
}

// TestFind: what a command would not find is not there, though this process sees it.
func TestFind(t *testing.T) {
	for _, name := range []string{"no-such-command", "/usr/bin/no-such", "./x", "/in/x", "/root/x", "/usr/../etc/passwd", "/usr/bin", "", "/"} {
		if err := Find(name); !errors.Is(err, tasks.ErrUnfit) || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"sh", "/bin/sh", "/usr/bin/../bin/env"} {
		if err := Find(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	defer func(dirs, path []string) { systemDirs, searchPath = dirs, path }(systemDirs, searchPath)
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "program")
	systemDirs, searchPath = []string{dir}, []string{dir}
	if err := os.WriteFile(elsewhere, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "leads-away")); err != nil {
		t.Fatal(err)
	}
	if err := Find("leads-away"); !errors.Is(err, tasks.ErrUnfit) {
		t.Errorf("a link to what no command sees: %v", err)
	}
}

// TestBwrapCannotStart: bubblewrap cannot run it, which is no fault of the task.
func TestBwrapCannotStart(t *testing.T) {
	b := open(t, nil)
	for _, name := range []string{"no-such-command", "/in/x", "/usr", "/usr/share/common-licenses/GPL-3", "/etc/localtime"} {
		if o := run(t, b, sandbox.Request{Args: []string{name}}); o.State != tasks.StateLost || !o.Unfit || !strings.Contains(o.Why, name) {
			t.Errorf("%s: %+v", name, o)
		}
	}
	if o := run(t, b, sandbox.Request{Args: []string{"sh", "-c", "exec no-such-command"}}); o.State != tasks.StateFailed || o.ExitCode != 127 || o.Unfit {
		t.Errorf("a command that ran: %+v", o)
	}
}

// TestBwrapHostile: what a hostile command could try. Each script exits with 0 only
// if it got through.
func TestBwrapHostile(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("key"), 0o644); err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	port := listener.Addr().(*net.TCPAddr).Port
	b := open(t, nil)
	in := stage(t, b, "an input")
	for name, script := range map[string]string{
		"network":                 fmt.Sprintf("exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d'", port),
		"other network":           "exec bash -c 'exec 3<>/dev/udp/192.0.2.1/53'",
		"reading a file":          "cat " + secret,
		"reading home":            "ls " + home + "/",
		"listing homes":           "ls /home/ || ls /root/",
		"the host's passwords":    "cat /etc/shadow || cat /etc/passwd",
		"writing at the root":     "echo x >/x",
		"writing to /usr":         "echo x >/usr/x || rm /usr/bin/env",
		"writing to /in":          "echo x >/in/f || chmod 600 /in/f || rm /in/f",
		"writing to /etc":         "echo x >/etc/x",
		"writing to /dev":         "echo x >/dev/x",
		"writing to /proc":        "echo 0 >/proc/self/oom_score_adj || echo 1 >/proc/sys/kernel/sysrq",
		"the disk":                "ls /dev/vda /dev/sda /dev/nvme0n1 /dev/mem /dev/kmsg 2>/dev/null | grep .",
		"killing the parent":      fmt.Sprintf("kill -9 %d || kill -9 %d", os.Getpid(), os.Getppid()),
		"seeing other processes":  fmt.Sprintf("ls -d /proc/%d", os.Getpid()),
		"killing the first":       "kill -9 1; kill -0 1 && sleep 0.05 && exit 1",
		"mounting":                "mount -t tmpfs none /tmp || mount -o remount,rw /",
		"another user namespace":  "unshare -U true || unshare -r true",
		"leaving the namespace":   "nsenter -t 1 -m true",
		"becoming root":           "su -c true || sudo -n true",
		"a suid program":          "cp /bin/sh /tmp/s && chmod 4755 /tmp/s && test \"$(id -u)\" = 0",
		"a device":                "mknod /tmp/d b 8 0",
		"tracing":                 "strace true",
		"the host's name":         "hostname broken",
		"a better priority":       "renice -n -5 $$ || chrt -o -p 0 $$ || chrt -f -p 5 $$",
		"setting the clock":       "date -s 2001-01-01",
		"reading kernel messages": "dmesg",
		"the parent's files":      "ls -l /proc/1/fd/ | grep -v -E 'total|pipe|eventfd|/dev/null'",
		"more open files":         "ulimit -n 100000",
		"a core dump":             "ulimit -c unlimited",
	} {
		t.Run(name, func(t *testing.T) {
			r := sh(script)
			r.Inputs = []tasks.Input{{Name: "f", Content: in, Size: 8}}
			if o := run(t, b, r); o.State != tasks.StateFailed {
				t.Errorf("%+v\n%s%s", o, o.Stdout, o.Stderr)
			}
		})
	}
	if data, err := os.ReadFile(b.InputPath(in)); err != nil || string(data) != "an input" {
		t.Errorf("the input is %q, %v", data, err)
	}
}

func TestBwrapLimits(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		change func(*tasks.Limits)
		want   tasks.Limit
	}{
		"time":            {"sleep 60", func(l *tasks.Limits) { l.Wall = 300 * time.Millisecond }, tasks.LimitWall},
		"time, ignoring":  {"trap '' TERM INT HUP; while :; do :; done", func(l *tasks.Limits) { l.Wall = 300 * time.Millisecond }, tasks.LimitWall},
		"standard output": {"yes", nil, tasks.LimitStdout},
		"standard error":  {"yes >&2", nil, tasks.LimitStdout},
		"files":           {"cd /out; i=0; while :; do i=$((i+1)); : >$i; done", nil, tasks.LimitOutput},
		"files, left":     {"cd /out; for i in 1 2 3 4; do : >$i; done", func(l *tasks.Limits) { l.OutputFiles = 3 }, tasks.LimitOutput},
		"sparse output":   {"cd /out; for i in 1 2 3; do truncate -s 4M $i; done", nil, tasks.LimitOutput},
		"memory in all":   {"for i in 1 2 3 4; do sh -c 'x=$(head -c 30000000 /dev/zero | tr \"\\0\" x); sleep 60' & done; wait", func(l *tasks.Limits) { l.MemoryBytes = 96 << 20 }, tasks.LimitMemory},
		"memory in files": {"for i in 1 2 3; do head -c 30M /dev/zero >/tmp/$i; done; head -c 30M /dev/zero >/dev/shm/x; sleep 60", func(l *tasks.Limits) { l.MemoryBytes = 96 << 20 }, tasks.LimitMemory},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, c.change)
			o := run(t, b, sh(c.script))
			if o.State != tasks.StateLimit || o.Limit != c.want || o.Why == "" {
				t.Errorf("%s %s %q\n%.200s", o.State, o.Limit, o.Why, o.Stderr)
			}
			noProcesses(t)
		})
	}
}

// noProcesses fails if a command's process is left: they all have one parent.
func noProcesses(t *testing.T) {
	t.Helper()
	if left := sandbox.Descendants(os.Getpid()); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestBwrapFull: directories in memory take what they may, no more, and the command
// sees an error.
func TestBwrapFull(t *testing.T) {
	b := open(t, nil)
	for _, dir := range []string{"/out", "/tmp", "/dev/shm"} {
		o := run(t, b, sh("head -c 400M /dev/zero >"+dir+"/x"))
		if o.State == tasks.StateDone {
			t.Errorf("%s was filled: %+v", dir, o)
		}
	}
}

func TestBwrapForkBomb(t *testing.T) {
	b := open(t, func(l *tasks.Limits) { l.Wall = 4 * time.Second })
	if o := run(t, b, sh("f() { f | f & }; f; sleep 60")); o.State == tasks.StateDone {
		t.Errorf("%+v", o)
	}
	noProcesses(t)
	if o := run(t, b, sh("echo on")); o.State != tasks.StateDone {
		t.Errorf("%+v", o)
	}
}

// TestBwrapLeavesNothing: what a command started ends with it.
func TestBwrapLeavesNothing(t *testing.T) {
	b := open(t, nil)
	o := run(t, b, sh("setsid sleep 60 </dev/null >/dev/null 2>&1 & (sleep 60; echo late >/out/late) & echo done"))
	if o.State != tasks.StateDone || len(o.Files) > 0 {
		t.Errorf("%+v", o)
	}
	noProcesses(t)
	if dirs, _ := filepath.Glob(filepath.Join(b.cfg.Dir, runsDir, "*")); len(dirs) > 0 {
		t.Errorf("%v are left", dirs)
	}
}

func TestBwrapOddOutputs(t *testing.T) {
	for name, script := range map[string]string{
		"symbolic link": "ln -s /etc/passwd /out/l", "pipe": "mkfifo /out/p", "bad name": "echo x >'/out/a\\b'",
	} {
		b := open(t, nil)
		if o := run(t, b, sh(script)); o.State != tasks.StateFailed || !strings.Contains(o.Why, "/out") || len(o.Files) > 0 {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestBwrapHold(t *testing.T) {
	b := open(t, func(l *tasks.Limits) { l.Wall = 700 * time.Millisecond })
	done := make(chan sandbox.Outcome, 2)
	took := func(o sandbox.Outcome) { done <- o }
	if _, err := b.Submit(sh("while :; do :; done"), took); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(sandbox.Descendants(os.Getpid())) >= 3 })
	for range 2 {
		if !b.Hold() {
			t.Fatal("not held")
		}
	}
	waitFor(t, func() bool {
		for _, pid := range sandbox.Descendants(os.Getpid()) {
			if !strings.Contains(status(pid), "T (stopped)") {
				return false
			}
		}
		return true
	})
	select {
	case o := <-done:
		t.Fatalf("%+v while it was held", o)
	case <-time.After(time.Second):
	}
	b.Resume()
	if o := <-done; o.Limit != tasks.LimitWall {
		t.Errorf("%+v", o)
	}
	b = open(t, nil)
	b.Hold()
	if _, err := b.Submit(sh("exit 0"), took); err != nil {
		t.Fatal(err)
	}
	select {
	case o := <-done:
		t.Fatalf("%+v began while it was held", o)
	case <-time.After(100 * time.Millisecond):
	}
	b.Resume()
	if o := <-done; o.State != tasks.StateDone {
		t.Errorf("%+v", o)
	}
}

func status(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return string(text)
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 24_000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it did not come to that")
}

func TestBwrapAbandonAndClose(t *testing.T) {
	b := open(t, nil)
	done := make(chan sandbox.Outcome, 3)
	took := func(o sandbox.Outcome) { done <- o }
	first, err := b.Submit(sh("sleep 60"), took)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(sandbox.Descendants(os.Getpid())) >= 3 })
	b.Hold()
	first.Abandon()
	if o := <-done; o.State != tasks.StateCancelled {
		t.Errorf("%+v", o)
	}
	b.Resume()
	for range 2 {
		if _, err := b.Submit(sh("sleep 60"), took); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return len(sandbox.Descendants(os.Getpid())) >= 3 })
	b.Close()
	if o := <-done; o.State != tasks.StateLost {
		t.Errorf("%+v", o)
	}
	if o := <-done; !o.NotRun {
		t.Errorf("%+v", o)
	}
	if _, err := b.Submit(sh("true"), took); !errors.Is(err, sandbox.ErrEnded) {
		t.Errorf("%v after Close", err)
	}
	noProcesses(t)
}

// TestBwrapDiesWithParent: nothing is left when this program is killed.
func TestBwrapDiesWithParent(t *testing.T) {
	b := open(t, nil)
	if os.Getenv("BWRAP_PARENT") != "" {
		b.Submit(sh("echo up >/out/x; sleep 300"), func(sandbox.Outcome) {})
		waitFor(t, func() bool { return len(sandbox.Descendants(os.Getpid())) >= 3 })
		fmt.Println("READY", sandbox.Descendants(os.Getpid()))
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBwrapDiesWithParent$", "-test.v")
	dir, err := os.MkdirTemp("", "bwrap-") // which that process does not live to remove
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // commands run as somebody else
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "BWRAP_PARENT=1", "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	seen := ""
	for !strings.Contains(seen, "READY") || !strings.HasSuffix(seen, "]\n") {
		n, err := out.Read(buffer)
		seen += string(buffer[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, seen)
		}
	}
	below := sandbox.Descendants(cmd.Process.Pid)
	if len(below) < 3 {
		t.Fatalf("only %v", below)
	}
	cmd.Process.Kill()
	cmd.Wait()
	waitFor(t, func() bool {
		for _, pid := range below {
			if syscall.Kill(pid, 0) == nil && !strings.Contains(status(pid), "Z (zombie)") {
				return false
			}
		}
		return true
	})
}
