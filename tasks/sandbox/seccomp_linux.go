package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data. Arguments are 64 bits wide; where a filter
// looks at one it looks at the low half, which is all that the kernel uses of
// those compared here.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
	argBytes   = 8
)

// x32Bit marks the second system call table of amd64.
const x32Bit = 0x40000000

// architectures are those that the compiling engine supports.
var architectures = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64,
	"arm64": unix.AUDIT_ARCH_AARCH64,
}

// allowed is what a Go runtime with pipes and files needs, and no more: no
// socket, no exec, no ptrace, no ioctl, no way to rename, link or change the
// mode of a file. clone, fcntl, futex, madvise, tgkill and prlimit64 are allowed in
// part.
var allowed = append([]uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_CLOSE,
	unix.SYS_OPENAT, unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_FTRUNCATE, unix.SYS_UNLINKAT,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MINCORE,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_RESTART_SYSCALL,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRANDOM, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_SECCOMP, // until the last filter
}, allowedHere...)

var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	kill  = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

func deny(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// call runs rule, which must return on every path, for one system call.
func call(number uint32, rule ...bpf.Instruction) []bpf.Instruction {
	skip := bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(rule))}
	return append([]bpf.Instruction{skip}, rule...)
}

// whenArg allows a call if its argument meets cond, else denies it.
func whenArg(arg int, cond bpf.JumpTest, val uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: uint32(dataArgs + argBytes*arg), Size: 4},
		bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1},
		allow,
		deny(unix.EPERM),
	}
}

// fileCommands are what the Go runtime asks of fcntl. Others could have the kernel
// send any signal to any process of the user when a pipe becomes readable
// (F_SETOWN, F_SETSIG), or hold locks and leases.
var fileCommands = []uint32{unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC}

// memoryAdvice is what the Go runtime says of its memory. Other advice could have the
// kernel look for pages that others have too, so that the time of a write tells what
// is in their memory.
var memoryAdvice = []uint32{unix.MADV_DONTNEED, unix.MADV_FREE, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE, unix.MADV_COLLAPSE}

// Operations of futex, of which locks that pass on priority were the way into
// several kernels.
const (
	futexWait       = 0
	futexWake       = 1
	futexTryLockPI  = 8
	futexWaitBitset = 9
	futexWakeBitset = 10
	futexPrivate    = 128
	futexRealtime   = 256
)

// futexOperations are those with which threads wait for each other.
var futexOperations = []uint32{
	futexWait, futexWait | futexPrivate, futexWake, futexWake | futexPrivate,
	futexWaitBitset, futexWaitBitset | futexPrivate, futexWaitBitset | futexRealtime, futexWaitBitset | futexPrivate | futexRealtime,
	futexWakeBitset, futexWakeBitset | futexPrivate,
}

// threadOnly allows clone to make threads, which stay in the namespaces of the
// process.
var threadOnly = []bpf.Instruction{
	bpf.LoadAbsolute{Off: dataArgs, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: cloneNamespaces, SkipTrue: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD, SkipFalse: 1},
	allow,
	deny(unix.EPERM),
}

// whenArgIn allows a call if its argument is one of values, else denies it.
func whenArgIn(arg int, values ...uint32) []bpf.Instruction {
	rule := []bpf.Instruction{bpf.LoadAbsolute{Off: uint32(dataArgs + argBytes*arg), Size: 4}}
	for _, v := range values {
		rule = append(rule, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1}, allow)
	}
	return append(rule, deny(unix.EPERM))
}

// prologue kills the process on a call of a foreign table and leaves the number
// of the call to be compared.
func prologue() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: architectures[runtime.GOARCH], SkipTrue: 1},
		kill,
		bpf.LoadAbsolute{Off: dataNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1},
		kill,
	}
}

// runtimeFilter denies all but what the Go runtime and the engine need. While a
// child compiles, the engine also makes a directory and renames in it; its sync
// is answered with success, for the parent takes the file at once.
func runtimeFilter(d duty) []bpf.Instruction {
	p := prologue()
	if d == dutyCompile {
		p = append(p, call(unix.SYS_MKDIRAT, allow)...)
		p = append(p, call(unix.SYS_RENAMEAT, allow)...)
		p = append(p, call(unix.SYS_FSYNC, deny(0))...)
	}
	for _, number := range allowed {
		p = append(p, call(number, allow)...)
	}
	p = append(p, call(unix.SYS_CLONE, threadOnly...)...)
	p = append(p, call(unix.SYS_FCNTL, whenArgIn(1, fileCommands...)...)...)
	p = append(p, call(unix.SYS_FUTEX, whenArgIn(1, futexOperations...)...)...)
	p = append(p, call(unix.SYS_MADVISE, whenArgIn(2, memoryAdvice...)...)...)
	p = append(p, call(unix.SYS_TGKILL, whenArg(0, bpf.JumpEqual, uint32(os.Getpid()))...)...)
	p = append(p, call(unix.SYS_PRLIMIT64, whenArg(0, bpf.JumpEqual, 0)...)...)
	// Its arguments are in memory, where a filter cannot look; callers go back
	// to clone.
	p = append(p, call(unix.SYS_CLONE3, deny(unix.ENOSYS))...)
	return append(p, deny(unix.EPERM))
}

// noNewCodeFilter denies executable memory, and what runtimeFilter allowed only
// so that this filter could follow. It comes on top of runtimeFilter.
func noNewCodeFilter() []bpf.Instruction {
	notExecutable := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArgs + 2*argBytes, Size: 4}, // prot is the third of both
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.PROT_EXEC, SkipFalse: 1},
		deny(unix.EPERM),
		allow,
	}
	p := prologue()
	p = append(p, call(unix.SYS_MMAP, notExecutable...)...)
	p = append(p, call(unix.SYS_MPROTECT, notExecutable...)...)
	p = append(p, call(unix.SYS_PRLIMIT64, deny(unix.EPERM))...)
	p = append(p, call(unix.SYS_SECCOMP, deny(unix.EPERM))...)
	return append(p, allow)
}

// loadFilter applies a filter to every thread of the process, for good.
func loadFilter(program []bpf.Instruction) error {
	if architectures[runtime.GOARCH] == 0 {
		return fmt.Errorf("no filter for %s", runtime.GOARCH)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, ins := range raw {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP,
		unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno != 0:
		return fmt.Errorf("the kernel refused the filter: %w", errno)
	case thread != 0:
		return fmt.Errorf("thread %d cannot take the filter", thread)
	}
	return nil
}
