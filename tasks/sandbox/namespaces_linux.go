package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolation is what a child gets of its own: users, mounts, processes, network,
// System V objects and the host's name.
const isolation = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
	syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

// isolate makes attr start a process in namespaces of its own. Inside it is called
// root, so that the first stage keeps over exec what it needs to mount /proc, and
// then gives up; to everybody else it is the same user as before.
func isolate(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= isolation
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
}

// isolationBarred says why children must not have namespaces here; empty: they may.
// Where the host does not share its mounts (systemd makes it share them), a child's
// copy of them would stay when the host unmounts one: a disk could not be let go
// of, and whoever serves a FUSE mount would not hear of its end.
func isolationBarred() string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err.Error()
	}
	if !sharesMounts(string(table)) {
		return "this system does not share its mounts, so theirs would keep disks busy (mount --make-rshared / changes that)"
	}
	return ""
}

// sharesMounts reports whether the topmost mount at the root in a mountinfo table
// (proc_pid_mountinfo(5)) passes its changes on.
func sharesMounts(table string) (shared bool) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 7 || fields[4] != "/" {
			continue
		}
		shared = false
		for _, field := range fields[6:] {
			if field == "-" {
				break
			}
			shared = shared || strings.HasPrefix(field, "shared:")
		}
	}
	return shared
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

// namespaceNames are the entries of /proc/PID/ns that isolation changes.
var namespaceNames = []string{"user", "mnt", "pid", "net", "ipc", "uts"}

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

// checkNamespaces compares the namespaces of this process with those of its
// parent.
func checkNamespaces(parents string) error {
	theirs, mine := strings.Fields(parents), strings.Fields(namespacesOf())
	if len(theirs) != len(namespaceNames) {
		return errors.New("the parent did not say which are its own")
	}
	var shared []string
	for i, name := range namespaceNames {
		if mine[i] == theirs[i] || mine[i] == "unknown" {
			shared = append(shared, name)
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

// ownProc covers /proc with one that has this process namespace only: the
// numbers of the host's would be taken for our own. A disk that the host lets go
// of goes here too, where the host shares its mounts as systemd has it.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("a /proc of its own: %w", err)
	}
	return nil
}
