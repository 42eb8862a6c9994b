package node_test

import (
	"os"
	"testing"

	"gotong/tasks/sandbox"
)

// TestMain lets the test binary be the sandbox child of the peers that it
// starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.ChildCommand {
		os.Exit(sandbox.ChildMain(os.Args[2:], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}
