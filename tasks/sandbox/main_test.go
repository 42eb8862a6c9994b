package sandbox

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be its own sandbox child, and the parent whose
// death a test watches.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ChildCommand:
			os.Exit(ChildMain(os.Args[2:], os.Stdin, os.Stdout))
		case doomedParentCommand:
			os.Exit(doomedParent(os.Args[2]))
		case probeCommand:
			os.Exit(nativeProbe(os.Args[2]))
		}
	}
	goleak.VerifyTestMain(m)
}
