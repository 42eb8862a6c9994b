package cli

import (
	"io"

	"gotong/tasks/sandbox"
)

// runHidden runs the command lines that are no command of the user: the child
// process in which guests run. It comes before everything else so that a child
// starts fast and touches nothing of the home.
func runHidden(args []string, stdin io.Reader, stdout io.Writer) (int, bool) {
	if len(args) > 0 && args[0] == sandbox.ChildCommand {
		return sandbox.ChildMain(args[1:], stdin, stdout), true
	}
	return 0, false
}
