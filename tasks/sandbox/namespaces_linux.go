package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespaceFlags are what a child gets of its own in any case: users, network,
// System V objects, the host's name and the view of cgroups. One that gets mounts
// of its own gets processes too: their numbers need a /proc that fits. For the
// mounts themselves see ownMounts.
const namespaceFlags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC |
	syscall.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// isolate makes attr start a process in namespaces of its own. Inside it is called
// root, so that the first stage keeps over exec what it needs to mount, and then
// gives up; to everybody else it is the same user as before.
func isolate(attr *syscall.SysProcAttr, most isolation) {
	if most == isolationNone {
		return
	}
	attr.Cloneflags |= namespaceFlags
	if most == isolationFull {
		attr.Cloneflags |= syscall.CLONE_NEWPID
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
}

// isolationRefused explains why a process could not be started in namespaces.
func isolationRefused(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "this system lets ordinary processes make no user namespaces"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return "user.max_user_namespaces is used up"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "this kernel was built without some of them"
	}
	return err.Error()
}

// namespaceNames are the entries of /proc/PID/ns that differ; from mountNames on
// those that come with mounts.
var namespaceNames = []string{"user", "net", "ipc", "uts", "cgroup", "pid", "mnt"}

const mountNames = 5

// namespacesOf returns what tells the namespaces of this process from those of
// another.
func namespacesOf() string {
	var b strings.Builder
	for _, name := range namespaceNames {
		target, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			target = "unknown"
		}
		fmt.Fprintf(&b, "%s ", target)
	}
	return strings.TrimSpace(b.String())
}

// checkNamespaces compares the namespaces of this process from the first to before
// the last with those of its parent.
func checkNamespaces(parents string, first, last int) error {
	theirs, mine := strings.Fields(parents), strings.Fields(namespacesOf())
	if len(theirs) != len(namespaceNames) {
		return errors.New("the parent did not say which are its own")
	}
	var shared []string
	for i := first; i < last; i++ {
		if mine[i] == theirs[i] || mine[i] == "unknown" {
			shared = append(shared, namespaceNames[i])
		}
	}
	if len(shared) > 0 {
		return fmt.Errorf("shared with this machine: %s", strings.Join(shared, ", "))
	}
	return nil
}

// ownProcesses reports whether this process is the first of a process namespace,
// and so in a user namespace of its own.
func ownProcesses() bool { return os.Getpid() == 1 && os.Getppid() == 0 }

// countsPerNamespace reports whether the kernel counts processes for each user
// namespace: Linux 5.14 and later. Before, a limit would count the donor's own.
func countsPerNamespace() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || (major == 5 && minor >= 14)
}
