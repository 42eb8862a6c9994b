//go:build unix

package cli

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// TestFullDiskIsExplained wherever in a command it shows.
func TestFullDiskIsExplained(t *testing.T) {
	err := fmt.Errorf("results: %w", &os.PathError{Op: "write", Path: "out/a", Err: syscall.ENOSPC})
	if f := failureOf(err); f.code != exitFailed || f.meaning == "" || f.next == "" {
		t.Errorf("%+v", f)
	}
	if f := failureOf(&os.PathError{Op: "write", Path: "out/a", Err: syscall.EIO}); f.next != "" {
		t.Errorf("%+v", f)
	}
}
