package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Fault is what happens to one call of a process.
type Fault struct {
	At    int           // the call, counted from 1; 0: none
	Errno syscall.Errno // what the call gives instead of being made; 0: the process is killed before it
}

// traced follows the threads of one process from call to call.
type traced struct {
	pid     int
	dir     string // calls that change something in it count
	fault   Fault
	calls   []string     // what was seen, for people
	inside  map[int]bool // threads that are in a call
	started map[int]bool // threads that were seen
}

// trace runs a program with its standard files and ends with it. It returns the
// calls that changed files below dir, the one that was made to fail too.
func trace(program string, args, env []string, files []uintptr, dir string, fault Fault) (calls []string, status syscall.WaitStatus, err error) {
	runtime.LockOSThread() // only the thread that started it may trace it
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec(program, args, &syscall.ProcAttr{Env: env, Files: files,
		Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true}})
	if err != nil {
		return nil, 0, fmt.Errorf("start a traced process: %w", err)
	}
	p := &traced{pid: pid, dir: dir, fault: fault, inside: map[int]bool{}, started: map[int]bool{}}
	status, err = p.follow()
	if err != nil {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
		_, _ = syscall.Wait4(pid, nil, syscall.WALL, nil)
	}
	return p.calls, status, err
}

// follow lets all threads go on from stop to stop until the process is gone.
func (p *traced) follow() (syscall.WaitStatus, error) {
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-p.pid, &status, syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for a traced process: %w", err)
		case !status.Stopped():
			if pid == p.pid {
				return status, nil
			}
			continue
		}
		signal := status.StopSignal()
		switch {
		case !p.started[pid]: // by exec, or by the thread that made it
			p.started[pid] = true
			signal = 0
			if pid == p.pid {
				if err := syscall.PtraceSetOptions(pid, options); err != nil {
					return 0, fmt.Errorf("trace: %w", err)
				}
			}
		case signal == syscall.SIGTRAP|0x80:
			signal = 0
			p.inside[pid] = !p.inside[pid]
			if !p.inside[pid] {
				break
			}
			if killed, err := p.entered(pid); killed || err != nil {
				return p.end(err)
			}
		case signal == syscall.SIGTRAP: // a thread was made
			signal = 0
		}
		// A thread that is killed meanwhile is no more: its end comes next.
		if err := syscall.PtraceSyscall(pid, int(signal)); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("trace: %w", err)
		}
	}
}

// end kills the process. The call in which it stands is not made any more.
func (p *traced) end(err error) (status syscall.WaitStatus, _ error) {
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("kill a traced process: %w", err)
	}
	for {
		pid, err := syscall.Wait4(-p.pid, &status, syscall.WALL, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return 0, fmt.Errorf("wait for a killed process: %w", err)
		}
		if err == nil && pid == p.pid && !status.Stopped() {
			return status, nil
		}
	}
}

// entered is called when a thread is about to make a call.
func (p *traced) entered(pid int) (killed bool, err error) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return false, nil
		}
		return false, fmt.Errorf("trace: %w", err)
	}
	name, path := p.changes(pid, &regs)
	path, err = filepath.Rel(p.dir, path)
	if name == "" || err != nil || path == ".." || strings.HasPrefix(path, "../") {
		return false, nil
	}
	p.calls = append(p.calls, name+" "+path)
	if len(p.calls) != p.fault.At {
		return false, nil
	}
	if p.fault.Errno == 0 {
		return true, nil
	}
	// No call has this number, so the kernel makes none and leaves the result.
	regs.Orig_rax, regs.Rax = ^uint64(0), -uint64(p.fault.Errno)
	if err := syscall.PtraceSetRegs(pid, &regs); err != nil {
		return false, fmt.Errorf("trace: %w", err)
	}
	return false, nil
}

// changes returns the name of a call that changes files, and which one, or no
// name for any other call.
func (p *traced) changes(pid int, regs *syscall.PtraceRegs) (name, path string) {
	switch regs.Orig_rax {
	case unix.SYS_WRITE:
		return "write", p.open(regs.Rdi)
	case unix.SYS_PWRITE64:
		return "pwrite", p.open(regs.Rdi)
	case unix.SYS_WRITEV:
		return "writev", p.open(regs.Rdi)
	case unix.SYS_PWRITEV, unix.SYS_PWRITEV2:
		return "pwritev", p.open(regs.Rdi)
	case unix.SYS_SENDFILE:
		return "sendfile", p.open(regs.Rdi)
	case unix.SYS_COPY_FILE_RANGE:
		return "copy_file_range", p.open(regs.Rdx)
	case unix.SYS_FSYNC:
		return "fsync", p.open(regs.Rdi)
	case unix.SYS_FDATASYNC:
		return "fdatasync", p.open(regs.Rdi)
	case unix.SYS_SYNC_FILE_RANGE:
		return "sync_file_range", p.open(regs.Rdi)
	case unix.SYS_FTRUNCATE:
		return "ftruncate", p.open(regs.Rdi)
	case unix.SYS_FALLOCATE:
		return "fallocate", p.open(regs.Rdi)
	case unix.SYS_FCHMOD:
		return "fchmod", p.open(regs.Rdi)
	case unix.SYS_FCHMODAT:
		return "fchmodat", p.named(pid, regs.Rdi, regs.Rsi)
	case unix.SYS_UTIMENSAT:
		return "utimensat", p.named(pid, regs.Rdi, regs.Rsi)
	case unix.SYS_TRUNCATE:
		return "truncate", p.named(pid, atWorkingDir, regs.Rdi)
	case unix.SYS_MKDIR:
		return "mkdir", p.named(pid, atWorkingDir, regs.Rdi)
	case unix.SYS_MKDIRAT:
		return "mkdirat", p.named(pid, regs.Rdi, regs.Rsi)
	case unix.SYS_UNLINK:
		return "unlink", p.named(pid, atWorkingDir, regs.Rdi)
	case unix.SYS_RMDIR:
		return "rmdir", p.named(pid, atWorkingDir, regs.Rdi)
	case unix.SYS_UNLINKAT:
		return "unlinkat", p.named(pid, regs.Rdi, regs.Rsi)
	case unix.SYS_RENAME:
		return "rename", p.named(pid, atWorkingDir, regs.Rsi)
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return "renameat", p.named(pid, regs.Rdx, regs.R10)
	case unix.SYS_LINK:
		return "link", p.named(pid, atWorkingDir, regs.Rsi)
	case unix.SYS_LINKAT:
		return "linkat", p.named(pid, regs.Rdx, regs.R10)
	case unix.SYS_SYMLINKAT:
		return "symlinkat", p.named(pid, regs.Rsi, regs.Rdx)
	case unix.SYS_OPENAT:
		if regs.Rdx&(unix.O_CREAT|unix.O_TRUNC) != 0 {
			return "openat", p.named(pid, regs.Rdi, regs.Rsi)
		}
	}
	return "", ""
}

// atWorkingDir is AT_FDCWD as it stands in a register.
const atWorkingDir = ^uint64(99)

// open returns the path of an open file of the process; of a pipe no path.
func (p *traced) open(fd uint64) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, int32(fd)))
	if err != nil || !filepath.IsAbs(path) {
		return "/"
	}
	return strings.TrimSuffix(path, " (deleted)")
}

// named returns the path that a call names by a directory and the address of a
// string.
func (p *traced) named(pid int, dirfd, address uint64) string {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return "/"
	}
	defer mem.Close()
	text := make([]byte, unix.PathMax)
	n, _ := mem.ReadAt(text, int64(address)) // less where the memory ends
	name, _, _ := bytes.Cut(text[:n], []byte{0})
	switch {
	case filepath.IsAbs(string(name)):
		return filepath.Clean(string(name))
	case int32(dirfd) == unix.AT_FDCWD:
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.pid))
		if err != nil {
			return "/"
		}
		return filepath.Join(dir, string(name))
	}
	return filepath.Join(p.open(dirfd), string(name))
}
