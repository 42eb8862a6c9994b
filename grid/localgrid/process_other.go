//go:build !unix

package localgrid

import (
	"errors"
	"os"
	"os/exec"
)

// askToEnd fails: there is no signal that asks, so the process is killed, which
// is safe at any moment.
func askToEnd(*os.Process) error { return errors.ErrUnsupported }

func detach(*exec.Cmd) {}
