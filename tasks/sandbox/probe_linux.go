package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prober tries one thing after another and keeps what came of it.
type prober struct {
	Targets
	in, out string // staging directories
	report  []Attempt
}

// attempts tries everything. None of it does harm when it gets through: signals
// are number zero, memory is read and not written, and what was made is removed.
func attempts(dir string, t Targets) []Attempt {
	p := &prober{Targets: t, in: filepath.Join(dir, inputDir), out: filepath.Join(dir, outputDir)}
	p.signals()
	p.processes()
	p.memory()
	p.files()
	p.sockets()
	p.code()
	p.limits()
	p.kernel()
	return p.report
}

// try records an attempt; no error means that it got through.
func (p *prober) try(name string, err error) {
	a := Attempt{Name: name, Refused: err != nil, How: "it worked"}
	if err != nil {
		a.How = err.Error()
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			a.How = fmt.Sprintf("%s: %s", unix.ErrnoName(errno), errno.Error())
		}
	}
	p.report = append(p.report, a)
}

// call tries a system call. The errors in through say that the kernel let it
// pass and found fault with what was given.
func (p *prober) call(name string, through []syscall.Errno, number uintptr, args ...uintptr) (result uintptr) {
	var a [6]uintptr
	copy(a[:], args)
	result, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	var err error
	if errno != 0 {
		err = errno
	}
	for _, t := range through {
		if errno == t {
			err = nil
		}
	}
	p.try(name, err)
	if err != nil {
		return ^uintptr(0)
	}
	return result
}

// opens tries a call whose result is a descriptor, and closes that.
func (p *prober) opens(name string, number uintptr, args ...uintptr) {
	if fd := p.call(name, nil, number, args...); fd != ^uintptr(0) {
		unix.Close(int(fd))
	}
}

// forks tries a call that returns twice, and ends the process that it made.
func (p *prober) forks(name string, number uintptr, args ...uintptr) {
	var a [6]uintptr
	copy(a[:], args)
	pid, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno == 0 && pid == 0 {
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	if errno != 0 {
		p.try(name, errno)
		return
	}
	unix.Wait4(int(pid), nil, unix.WALL, nil)
	p.try(name, nil)
}

func (p *prober) signals() {
	pid := p.Process
	p.try("signal to the peer", unix.Kill(pid, 0))
	p.try("signal to the peer's group", unix.Kill(-pid, 0))
	p.try("signal to everybody", unix.Kill(-1, 0))
	p.try("signal to a thread of the peer", unix.Tgkill(pid, pid, 0))
	p.opens("signal by a process descriptor", unix.SYS_PIDFD_OPEN, uintptr(pid), 0)
	_, err := unix.FcntlInt(0, unix.F_SETOWN, pid)
	p.try("signal by a file's owner", err)
}

func (p *prober) processes() {
	p.forks("fork", unix.SYS_CLONE, uintptr(unix.SIGCHLD))
	p.forks("fork into new namespaces", unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_NEWUSER)
	args := [8]uint64{4: uint64(unix.SIGCHLD)} // struct clone_args: the signal at the end
	p.forks("fork by clone3", unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	// With an argument list at address 1: the file is opened, nothing is run.
	path, _ := unix.BytePtrFromString(executable)
	p.call("exec", []syscall.Errno{unix.EFAULT}, unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), 1, 0)
	p.call("exec at a descriptor", []syscall.Errno{unix.EFAULT}, unix.SYS_EXECVEAT, 0, uintptr(unsafe.Pointer(path)), 1, 0, 0)
	p.call("ptrace of the peer", nil, unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(p.Process), 0, 0)
	// Without capabilities the kernel refuses it as well: no thread is made.
	p.forks("thread in new namespaces", unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_SIGHAND|unix.CLONE_THREAD|unix.CLONE_NEWUTS)
	p.call("outlive the peer", nil, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0)
	p.try("join another group", unix.Setpgid(0, p.Process))
	p.call("become another user", nil, unix.SYS_SETUID, 0)
	p.try("new namespaces", unix.Unshare(unix.CLONE_NEWNS))
	p.call("other personality", nil, unix.SYS_PERSONALITY, 0xffffffff)
}

func (p *prober) memory() {
	word := make([]byte, 1)
	local := unix.Iovec{Base: &word[0], Len: 1}
	remote := unix.RemoteIovec{Base: uintptr(p.Address), Len: 1}
	p.call("read the peer's memory", []syscall.Errno{unix.EFAULT}, unix.SYS_PROCESS_VM_READV, uintptr(p.Process),
		uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	p.open("open the peer's memory as a file", fmt.Sprintf("/proc/%d/mem", p.Process), os.O_RDWR)
	p.open("open its own memory as a file", "/proc/self/mem", os.O_RDWR)
	p.open("read the peer's environment", fmt.Sprintf("/proc/%d/environ", p.Process), os.O_RDONLY)
	p.call("let others of the same user look in", nil, unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	p.merge()
	p.try("find a file that was left open", inherited())
	p.call("compare descriptors with the peer", nil, unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(p.Process), 0, 0, 0)
}

// merge has the kernel look for pages that others have too.
func (p *prober) merge() {
	data, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		err = unix.Madvise(data, unix.MADV_MERGEABLE)
	}
	p.unmap("compare memory with others by merging it", data, err)
}

// inherited looks for a descriptor that leads out: a socket, a device, or a file
// with something in it.
func inherited() error {
	for fd := firstDescriptor; fd < limitOpenFiles; fd++ {
		var s unix.Stat_t
		if unix.Fstat(fd, &s) != nil {
			continue
		}
		switch s.Mode & unix.S_IFMT {
		case unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
			return nil
		case unix.S_IFREG:
			if s.Size > 0 {
				return nil
			}
		}
	}
	return errors.New("there is none")
}

// open tries to open a file; one that it made is removed.
func (p *prober) open(name, path string, flag int) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err == nil {
		f.Close()
		if flag&os.O_CREATE != 0 {
			os.Remove(path)
		}
	}
	p.try(name, err)
}

func (p *prober) files() {
	p.open("read the node key", p.Key, os.O_RDONLY)
	p.open("write the node key", p.Key, os.O_WRONLY)
	_, err := os.ReadDir(p.Dir)
	p.try("list the data directory", err)
	p.open("write the data directory", filepath.Join(p.Dir, "left-by-a-guest"), os.O_WRONLY|os.O_CREATE)
	p.open("read the password file", "/etc/passwd", os.O_RDONLY)
	_, err = os.ReadDir("/")
	p.try("list the root directory", err)
	p.open("write the staging directory", filepath.Join(filepath.Dir(p.in), "left-by-a-guest"), os.O_WRONLY|os.O_CREATE)
	p.open("write an input directory", filepath.Join(p.in, "left-by-a-guest"), os.O_WRONLY|os.O_CREATE)
	p.open("write compiled code", filepath.Join(filepath.Dir(p.in), codeDir, "left-by-a-guest"), os.O_WRONLY|os.O_CREATE)
	p.open("leave by ..", filepath.Join(p.out, "..")+"/../../../../../../../../../../etc/passwd", os.O_RDONLY)
	link := filepath.Join(p.out, "link")
	p.made("symbolic link to the key", link, os.Symlink(p.Key, link))
	p.made("hard link to the key", link, os.Link(p.Key, link))
	p.made("named pipe", link, unix.Mkfifo(link, 0o600))
	p.made("directory among outputs", link, os.Mkdir(link, 0o700))
	p.try("change a file's mode", os.Chmod(p.in, 0o777))
	p.try("change a file's owner", os.Chown(p.in, os.Getuid(), os.Getgid()))
	p.try("change a directory's time", unix.Utimes(p.in, make([]unix.Timeval, 2)))
	p.try("rename", unix.Renameat(unix.AT_FDCWD, p.in, unix.AT_FDCWD, p.in))
	p.try("extended attribute", unix.Setxattr(p.out, "user.guest", []byte("1"), 0))
	p.try("change root", unix.Chroot(p.out))
}

// made records an attempt to make something, and removes it.
func (p *prober) made(name, path string, err error) {
	if err == nil {
		os.Remove(path)
	}
	p.try(name, err)
}

func (p *prober) sockets() {
	for _, s := range []struct {
		name         string
		family, kind int
	}{
		{"TCP socket", unix.AF_INET, unix.SOCK_STREAM}, {"UDP socket", unix.AF_INET, unix.SOCK_DGRAM},
		{"IPv6 socket", unix.AF_INET6, unix.SOCK_STREAM}, {"raw socket", unix.AF_INET, unix.SOCK_RAW},
		{"packet socket", unix.AF_PACKET, unix.SOCK_RAW}, {"netlink socket", unix.AF_NETLINK, unix.SOCK_RAW},
		{"kernel crypto socket", unix.AF_ALG, unix.SOCK_SEQPACKET}, {"unix socket", unix.AF_UNIX, unix.SOCK_STREAM},
	} {
		p.opens(s.name, unix.SYS_SOCKET, uintptr(s.family), uintptr(s.kind), 0)
	}
	p.try("connect to the control socket", p.connect())
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
	}
	p.try("pair of sockets", err)
}

func (p *prober) connect() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: p.Socket})
}

func (p *prober) code() {
	const page = 4096
	data, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	p.unmap("executable memory", data, err)
	data, err = unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		err = unix.Mprotect(data, unix.PROT_READ|unix.PROT_EXEC)
	}
	p.unmap("make memory executable", data, err)
	p.try("executable file mapping", p.mapFile(page))
	p.call("make memory executable by a key", []syscall.Errno{unix.EINVAL}, unix.SYS_PKEY_MPROTECT, 0, page, unix.PROT_EXEC, ^uintptr(0))
	fd, err := unix.MemfdCreate("guest", 0)
	if err == nil {
		unix.Close(fd)
	}
	p.try("file without a name", err)
	p.call("further seccomp filter", []syscall.Errno{unix.EFAULT}, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
}

func (p *prober) unmap(name string, data []byte, err error) {
	if data != nil {
		unix.Munmap(data)
	}
	p.try(name, err)
}

// mapFile writes a file among the outputs and maps it as code.
func (p *prober) mapFile(size int) error {
	path := filepath.Join(p.out, "code")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		return err
	}
	defer os.Remove(path)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err == nil {
		unix.Munmap(data)
	}
	return err
}

func (p *prober) limits() {
	more := unix.Rlimit{Cur: 2 * limitOpenFiles, Max: 2 * limitOpenFiles}
	p.try("raise a limit", unix.Setrlimit(unix.RLIMIT_NOFILE, &more))
	p.try("limits of the peer", unix.Prlimit(p.Process, unix.RLIMIT_NOFILE, nil, &more))
	p.try("more open files", openMany())
	if !raceEnabled { // whose limit is out of reach
		const much = 16 << 30
		data, err := unix.Mmap(-1, 0, much, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		p.unmap("more memory", data, err)
	}
	param := [2]uint32{} // priority zero
	p.call("scheduling class", nil, unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_NORMAL, uintptr(unsafe.Pointer(&param)))
	p.try("priority", unix.Setpriority(unix.PRIO_PROCESS, 0, 0))
	p.call("disk priority", nil, unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, 2<<ioprioClassShift)
	var cpus unix.CPUSet
	cpus.Set(0)
	p.try("choose processors", unix.SchedSetaffinity(0, &cpus))
}

// openMany opens more files than the limit has.
func openMany() error {
	var held []int
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for range 2 * limitOpenFiles {
		fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		held = append(held, fd)
	}
	return nil
}

func (p *prober) kernel() {
	var ring [120]byte // struct io_uring_params
	p.opens("io_uring", unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&ring)))
	attr := [32]uint32{2, 4, 4, 1} // an array of one word
	p.opens("BPF map", unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	p.opens("user page faults", unix.SYS_USERFAULTFD, 1) // of this process only
	event := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	p.opens("performance counter", unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&event)), 0, ^uintptr(0), ^uintptr(0), 0)
	const sessionKeyring = -3
	session := int32(sessionKeyring)
	p.call("kernel keyring", nil, unix.SYS_KEYCTL, 0, uintptr(session), 1)
	p.try("mount", unix.Mount("none", p.out, "tmpfs", 0, ""))
	p.opens("file system context", unix.SYS_FSOPEN, uintptr(unsafe.Pointer(&[]byte("tmpfs\x00")[0])), 0)
	p.opens("watch files", unix.SYS_INOTIFY_INIT1, 0)
	p.call("shared memory", nil, unix.SYS_SHMGET, 0, 4096, 0o1600)
	p.call("kernel log", nil, unix.SYS_SYSLOG, 10, 0, 0)
	p.opens("timer descriptor", unix.SYS_TIMERFD_CREATE, unix.CLOCK_MONOTONIC, 0)
	var size int
	var word uint32
	p.call("lock that passes on priority", nil, unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), futexTryLockPI|futexPrivate)
	p.call("device control", nil, unix.SYS_IOCTL, 0, unix.TIOCINQ, uintptr(unsafe.Pointer(&size)))
	p.opens("further Landlock rules", unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) // its version
}
