package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// layersCommand of the test binary reports the layers after it made something
// missing on the system, which is its own.
const layersCommand = "layers-without"

// layersWithout is run in a user and a mount namespace.
func layersWithout(what string) int {
	var err error
	switch what {
	case "user namespaces":
		err = os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
	case "a whole proc":
		err = unix.Mount("none", "/proc/sys", "tmpfs", 0, "")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return 1
	}
	defer os.RemoveAll(dir)
	l, err := OpenLauncher(Options{})
	if err != nil {
		return 1
	}
	defer l.Close()
	layers, err := l.Layers(context.Background(), dir)
	if err != nil || json.NewEncoder(os.Stdout).Encode(layers) != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestLessIsolation: what a system does not allow is left out, with its reason, and
// no more than that.
func TestLessIsolation(t *testing.T) {
	wantMounts(t)
	for _, c := range []struct {
		without, namespaces, mounts string // the reasons for which a layer is not active
	}{
		{"nothing", "", ""},
		{"a whole proc", "", "a /proc of its own: operation not permitted"},
		{"user namespaces", "user.max_user_namespaces is used up", "user.max_user_namespaces is used up"},
	} {
		cmd := exec.Command(executable, layersCommand, c.without)
		cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.Output()
		var layers []Layer
		if err == nil {
			err = json.Unmarshal(out, &layers)
		}
		if err != nil {
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				t.Logf("%s", exit.Stderr)
			}
			t.Fatalf("without %s: %v", c.without, err)
		}
		for name, why := range map[string]string{LayerNamespaces: c.namespaces, LayerMounts: c.mounts} {
			i := slices.IndexFunc(layers, func(l Layer) bool { return l.Name == name })
			if i < 0 || layers[i].Active != (why == "") || layers[i].Why != why {
				t.Errorf("without %s: want %s to say %q, layers are %+v", c.without, name, why, layers)
			}
		}
		if err := Refusal(layers); err != nil {
			t.Errorf("without %s: %v", c.without, err)
		}
	}
}

// wantMounts skips a test where children have no mounts of their own.
func wantMounts(t *testing.T) {
	t.Helper()
	layers, err := openLauncher(t).Layers(context.Background(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if l.Name == LayerMounts && !l.Active {
			t.Skip("children have no mounts of their own: " + l.Why)
		}
	}
}

// TestChildSeesNoMounts: nothing of the machine's is left, in sight or behind it.
func TestChildSeesNoMounts(t *testing.T) {
	wantMounts(t)
	c := start(t, "noop", nil)
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for line := range strings.Lines(string(table)) {
		places = append(places, strings.Fields(line)[4])
	}
	slices.Sort(places)
	if want := []string{"/", "/code", "/in", "/out", "/proc"}; !slices.Equal(places, want) {
		t.Errorf("the child sees mounts at %q, want %q", places, want)
	}
}

// TestUnmountBesideChild: who serves a FUSE mount hears that it was unmounted while a
// child is there that was started while it was mounted.
func TestUnmountBesideChild(t *testing.T) {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer dev.Close()
	dir := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", dev.Fd(), os.Getuid(), os.Getgid())
	if err := unix.Mount("test", dir, "fuse.test", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Skip("cannot mount: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) // fails unless the test did
	run(t, start(t, "probe", nil), "exit", "0")
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(dev.Fd())}}
	for {
		n, err := unix.Poll(fds, 20_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil || fds[0].Revents&unix.POLLERR == 0 {
			t.Errorf("the mount lives on in the child: %d, %v, %x", n, err, fds[0].Revents)
		}
		return
	}
}

// TestReasonOfAnEnd: a process that ends before it says hello is explained.
func TestReasonOfAnEnd(t *testing.T) {
	for program, want := range map[string]string{
		"/bin/false": "its process ended before it was ready: ", // it may be killed before it has ended
		"/bin/ls":    "cannot access",
	} {
		l, err := OpenLauncher(Options{Executable: program})
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Layers(context.Background(), t.TempDir())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", program, err, want)
		}
		l.Close()
	}
}
