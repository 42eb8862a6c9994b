package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// fakeCgroup makes a directory that looks like a delegated cgroup.
func fakeCgroup(t *testing.T, controllers string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.procs": "12345\n", "cgroup.subtree_control": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readText(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestChildInACgroup(t *testing.T) {
	dir := fakeCgroup(t, "cpuset cpu io memory hugetlb pids\n")
	stale, alive := filepath.Join(dir, cgroupChild+"4194305-1"), filepath.Join(dir, fmt.Sprintf("%s%d-0", cgroupChild, os.Getpid()))
	os.Mkdir(stale, 0o755)
	os.Mkdir(alive, 0o755)
	l, err := OpenLauncher(Options{Cgroup: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := readText(t, stale, "cgroup.kill"); got != "1" {
		t.Errorf("what an earlier peer left was not ended: %q", got)
	}
	if _, err := os.Stat(filepath.Join(alive, "cgroup.kill")); err == nil {
		t.Error("the children of a peer that runs were ended")
	}
	if got := readText(t, dir, cgroupPeer, "cgroup.procs"); got != "12345" {
		t.Errorf("moved %q", got)
	}
	if got := readText(t, dir, "cgroup.subtree_control"); got != "+cpu +memory +pids" {
		t.Errorf("handed down %q", got)
	}
	c, err := l.Start(context.Background(), Config{Dir: t.TempDir(), Module: guestModule(t, "noop"), Limits: testLimits()})
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range c.Layers() {
		if layer.Name == LayerCgroup && !layer.Active {
			t.Errorf("%+v", layer)
		}
	}
	own := c.cgroup
	if filepath.Dir(own) != dir {
		t.Fatalf("the child's cgroup is %q", own)
	}
	for file, want := range map[string]string{
		"cgroup.procs": strconv.Itoa(c.cmd.Process.Pid), "pids.max": strconv.Itoa(2 * childThreads),
		"memory.max":       strconv.FormatInt(testLimits().MemoryBytes+limitRunData+limitCompileData, 10),
		"memory.oom.group": "1", "memory.swap.max": "0", "cpu.idle": "1",
	} {
		if got := readText(t, own, file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	wantDone(t, run(t, c))
	c.Close()
	if got := readText(t, own, "cgroup.kill"); got != "1" {
		t.Errorf("cgroup.kill is %q", got)
	}
}

func TestNoCgroup(t *testing.T) {
	for want, dir := range map[string]string{
		"memory and the pids": fakeCgroup(t, "cpu pids\n"),
		"no such file":        filepath.Join(t.TempDir(), "nowhere"),
	} {
		l, err := OpenLauncher(Options{Cgroup: dir})
		if err != nil {
			t.Fatal(err)
		}
		layers, err := l.Layers(context.Background(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, layer := range layers {
			if layer.Name == LayerCgroup {
				found = !layer.Active && !layer.Required && strings.Contains(layer.Why, want)
			}
		}
		if !found || Refusal(layers) != nil {
			t.Errorf("%q: %+v", want, layers)
		}
		l.Close()
	}
}

func TestFindCgroup(t *testing.T) {
	mount := t.TempDir()
	if _, err := findCgroup(mount, "0::/x\n"); err == nil || !strings.Contains(err.Error(), "no cgroup v2") {
		t.Errorf("nothing mounted: %v", err)
	}
	os.WriteFile(filepath.Join(mount, "cgroup.controllers"), nil, 0o644)
	os.Mkdir(filepath.Join(mount, "x"), 0o755)
	if _, err := findCgroup(mount, "1:cpu:/\n0::/x\n"); err == nil || !strings.Contains(err.Error(), "Delegate=yes") {
		t.Errorf("not delegated: %v", err)
	}
	if _, err := findCgroup(mount, "1:cpu:/\n"); err == nil {
		t.Error("found one that is not there")
	}
}
