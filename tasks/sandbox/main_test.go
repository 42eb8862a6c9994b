package sandbox

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be its own sandbox child, and the parent whose
// death a test watches.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildCommand {
		os.Exit(ChildMain(os.Args[2:], os.Stdin, os.Stdout))
	}
	if len(os.Args) > 2 {
		if command := testCommands[os.Args[1]]; command != nil {
			os.Exit(command(os.Args[2]))
		}
	}
	goleak.VerifyTestMain(m)
}
