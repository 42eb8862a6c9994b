package sandbox

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// self names the running binary, even if its file was replaced since.
func self() (string, error) { return executable, nil }

func setProcess(cmd *exec.Cmd, most isolation) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	isolate(cmd.SysProcAttr, most)
}

// onMainThread reports whether the caller runs on the first thread of the process.
func onMainThread() bool { return unix.Gettid() == os.Getpid() }

// killGroup kills the child's process group. The process must not have been
// waited for yet.
func killGroup(p *os.Process) { syscall.Kill(-p.Pid, syscall.SIGKILL) }

func killedFromOutside(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGTERM)
}
