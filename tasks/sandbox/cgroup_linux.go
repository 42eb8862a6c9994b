package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gotong/tasks"
)

// cgroupMount is where systems with cgroup v2 alone have it.
const cgroupMount = "/sys/fs/cgroup"

// Names below a delegated cgroup.
const (
	cgroupPeer  = "peer"  // the processes that were there before, this one among them
	cgroupChild = "task-" // number of the peer's process - number: one child
)

// FindCgroup returns the cgroup v2 of this process if the system handed it over to
// the user, as systemd does with Delegate=yes. The error says in words why not.
func FindCgroup() (string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return findCgroup(cgroupMount, string(own))
}

func findCgroup(mount, own string) (string, error) {
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err != nil {
		return "", errors.New("this system has no cgroup v2 at " + mount)
	}
	for line := range strings.Lines(own) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		dir := filepath.Join(mount, path)
		if filepath.Base(dir) == cgroupPeer { // moved there by an earlier opening
			dir = filepath.Dir(dir)
		}
		if !delegated(dir) {
			return "", errors.New("the system did not delegate a cgroup to this peer: run it as a service with Delegate=yes")
		}
		return dir, nil
	}
	return "", errors.New("this process is in no cgroup v2")
}

// delegated looks for the mark that systemd leaves.
func delegated(dir string) bool {
	var value [8]byte
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// cgroupRoot is a delegated cgroup in which each child gets one of its own.
type cgroupRoot struct {
	dir         string
	controllers []string
}

// wantControllers are those that are of use; memory and pids make the layer.
var wantControllers = []string{"memory", "pids", "cpu"}

// openCgroup makes dir ready for children: its processes move to one below, for
// only a cgroup without processes may hand its controllers down.
func openCgroup(dir string) (*cgroupRoot, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	r := &cgroupRoot{dir: dir}
	for _, name := range strings.Fields(string(b)) {
		if slices.Contains(wantControllers, name) {
			r.controllers = append(r.controllers, name)
		}
	}
	if !slices.Contains(r.controllers, "memory") || !slices.Contains(r.controllers, "pids") {
		return nil, fmt.Errorf("cgroup %s has not both the memory and the pids controller", dir)
	}
	if err := r.movePeer(); err != nil {
		return nil, err
	}
	if err := r.write(dir, "cgroup.subtree_control", "+"+strings.Join(r.controllers, " +")); err != nil {
		return nil, err
	}
	endStale(dir)
	return r, nil
}

// endStale removes cgroups of peers that have ended; several may share dir.
func endStale(dir string) {
	list, _ := filepath.Glob(filepath.Join(dir, cgroupChild+"*"))
	for _, left := range list {
		var pid, number int
		if _, err := fmt.Sscanf(filepath.Base(left), cgroupChild+"%d-%d", &pid, &number); err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			endCgroup(left)
		}
	}
}

// cgroupNumber is of the last child's cgroup of this process.
var cgroupNumber atomic.Int64

func (r *cgroupRoot) movePeer() error {
	peer := filepath.Join(r.dir, cgroupPeer)
	if err := os.Mkdir(peer, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	list, err := os.ReadFile(filepath.Join(r.dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(list)) {
		if err := r.write(peer, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func (r *cgroupRoot) write(dir, file, value string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// child makes a cgroup for the process pid with limits that hold for the child as
// a whole: the guest's memory and what the engine may need beside it.
func (r *cgroupRoot) child(pid int, d duty, limits tasks.Limits) (dir string, err error) {
	memory := limits.MemoryBytes + limitRunData + limitCompileData
	if d == dutyCompile {
		memory = 2 * limitCompileData
	}
	return r.place(pid, memory, 2*childThreads)
}

// place makes a cgroup for a process and what it starts.
func (r *cgroupRoot) place(pid int, memory int64, processes int) (dir string, err error) {
	dir = filepath.Join(r.dir, fmt.Sprintf("%s%d-%d", cgroupChild, os.Getpid(), cgroupNumber.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("cgroup: %w", err)
	}
	err = errors.Join(
		r.write(dir, "memory.max", strconv.FormatInt(memory, 10)),
		r.write(dir, "memory.oom.group", "1"),
		r.write(dir, "pids.max", strconv.Itoa(processes)))
	// What not every kernel has.
	r.write(dir, "memory.swap.max", "0")
	if slices.Contains(r.controllers, "cpu") && r.write(dir, "cpu.idle", "1") != nil {
		r.write(dir, "cpu.weight", "1")
	}
	if err == nil {
		err = r.write(dir, "cgroup.procs", strconv.Itoa(pid))
	}
	if err != nil {
		endCgroup(dir)
		return "", err
	}
	return dir, nil
}

// endCgroup kills what is left in a child's cgroup and removes it. The process
// must have been waited for, or not be ours.
func endCgroup(dir string) {
	os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0o644)
	os.Remove(dir)
}
