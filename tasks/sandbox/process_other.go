//go:build !linux

package sandbox

import (
	"os"
	"os/exec"
)

func self() (string, error) { return os.Executable() }

func setProcess(*exec.Cmd, bool) {}

// isolationBarred is empty: the layer says itself that there are none here.
func isolationBarred() string { return "" }

// isolationRefused is not called: no child is started in namespaces here.
func isolationRefused(err error) string { return err.Error() }

// namespacesOf is empty: there are none.
func namespacesOf() string { return "" }

// killGroup kills the child; it cannot have children of its own that matter.
func killGroup(p *os.Process) { p.Kill() }

// killedFromOutside cannot be told here from any other sudden end.
func killedFromOutside(state *os.ProcessState) bool { return state.ExitCode() == -1 }
