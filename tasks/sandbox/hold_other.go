//go:build !linux && !windows

package sandbox

import (
	"os"
	"syscall"
)

func stopProcesses(p *os.Process) bool { return p.Signal(syscall.SIGSTOP) == nil }

func continueProcesses(p *os.Process) { p.Signal(syscall.SIGCONT) }
