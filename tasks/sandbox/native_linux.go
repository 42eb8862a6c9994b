package sandbox

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Descendants returns the processes that descend from root, parents first.
func Descendants(root int) []int { return below(root) }

// CountsProcessesApart reports whether the kernel counts the processes of a user
// namespace apart from those of the user outside.
func CountsProcessesApart() bool { return countsPerNamespace() }

// IdlePriority gives a process, and what it starts later, the least priority for
// processor and disk, and makes the kernel take it first when memory runs out. What
// the system refuses is left out.
func IdlePriority(pid int) {
	unix.Setpriority(unix.PRIO_PROCESS, pid, niceLeast)
	unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: niceLeast}, 0)
	unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(pid), ioprioClassIdle<<ioprioClassShift)
	os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj"), []byte(oomFirst), 0)
}

// cloneNamespaces are the flags of clone with which a process leaves the
// namespaces it is in.
const cloneNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
	unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// deniedNative is what no ordinary command needs and what has opened kernels:
// mounts, namespaces, tracing, modules, keys, the host's clock and the interfaces
// that get around other walls or limits.
var deniedNative = append([]uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_ACCT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_FANOTIFY_INIT,
	unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET, unix.SYS_SHMGET, unix.SYS_MSGGET, // memory that nobody counts
	unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_MBIND, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
}, deniedNativeHere...)

// nativeFilter allows a native command everything but deniedNative, sockets other
// than those between processes of one machine, namespaces, and typing into a
// terminal.
func nativeFilter() []bpf.Instruction {
	unless := func(arg int, cond bpf.JumpTest, val uint32) []bpf.Instruction {
		return []bpf.Instruction{
			bpf.LoadAbsolute{Off: uint32(dataArgs + argBytes*arg), Size: 4},
			bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1},
			deny(unix.EPERM),
			allow,
		}
	}
	p := prologue()
	for _, number := range deniedNative {
		p = append(p, call(number, deny(unix.EPERM))...)
	}
	p = append(p, call(unix.SYS_SOCKET, whenArg(0, bpf.JumpEqual, unix.AF_UNIX)...)...)
	p = append(p, call(unix.SYS_CLONE, unless(0, bpf.JumpBitsSet, cloneNamespaces)...)...)
	p = append(p, call(unix.SYS_IOCTL, unless(1, bpf.JumpEqual, unix.TIOCSTI)...)...)
	// Its arguments are in memory, where a filter cannot look; callers go back to
	// clone.
	p = append(p, call(unix.SYS_CLONE3, deny(unix.ENOSYS))...)
	return append(p, allow)
}

// NativeFilter returns a seccomp filter for native commands in the form in which
// the kernel, and bubblewrap, take it.
func NativeFilter() ([]byte, error) {
	raw, err := bpf.Assemble(nativeFilter())
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 8*len(raw))
	for _, ins := range raw {
		b = binary.NativeEndian.AppendUint16(b, ins.Op)
		b = append(b, ins.Jt, ins.Jf)
		b = binary.NativeEndian.AppendUint32(b, ins.K)
	}
	return b, nil
}
