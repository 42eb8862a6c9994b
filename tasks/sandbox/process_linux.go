package sandbox

import (
	"os"
	"os/exec"
	"syscall"
)

// self names the running binary, even if its file was replaced since.
func self() (string, error) { return executable, nil }

func setProcess(cmd *exec.Cmd, isolated bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if isolated {
		isolate(cmd.SysProcAttr)
	}
}

// killGroup kills the child's process group. The process must not have been
// waited for yet.
func killGroup(p *os.Process) { syscall.Kill(-p.Pid, syscall.SIGKILL) }

func killedFromOutside(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGTERM)
}
