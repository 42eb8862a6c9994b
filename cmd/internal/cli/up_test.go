package cli

import (
	"runtime/debug"
	"testing"
)

// TestMemoryIsLimited: a peer limits its memory unless the environment does.
func TestMemoryIsLimited(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	t.Setenv("GOMEMLIMIT", "1GiB")
	limitMemory()
	if got := debug.SetMemoryLimit(-1); got != was {
		t.Errorf("limit %d although the environment sets one", got)
	}
	t.Setenv("GOMEMLIMIT", "")
	limitMemory()
	if got := debug.SetMemoryLimit(-1); got != memoryLimit || got >= 256<<20 {
		t.Errorf("limit %d", got)
	}
}
