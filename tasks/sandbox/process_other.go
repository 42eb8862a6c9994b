//go:build !linux

package sandbox

import (
	"os"
	"os/exec"
)

func self() (string, error) { return os.Executable() }

func setProcess(*exec.Cmd) {}

// killGroup kills the child; it cannot have children of its own that matter.
func killGroup(p *os.Process) { p.Kill() }

// killedFromOutside cannot be told here from any other sudden end.
func killedFromOutside(state *os.ProcessState) bool { return state.ExitCode() == -1 }
