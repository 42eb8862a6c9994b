//go:build !linux

package sandbox

import (
	"os"
	"os/exec"
)

func self() (string, error) { return os.Executable() }

func setProcess(*exec.Cmd, isolation) {}

// isolationRefused is not called: no child is started in namespaces here.
func isolationRefused(err error) string { return err.Error() }

// namespacesOf is empty: there are none.
func namespacesOf() string { return "" }

// onMainThread matters only where the end of a thread does.
func onMainThread() bool { return false }

// killGroup kills the child; it cannot have children of its own that matter.
func killGroup(p *os.Process) { p.Kill() }

// killedFromOutside cannot be told here from any other sudden end.
func killedFromOutside(state *os.ProcessState) bool { return state.ExitCode() == -1 }
