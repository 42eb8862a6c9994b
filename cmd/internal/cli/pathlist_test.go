package cli

import (
	"strings"
	"testing"
)

// TestListWithOtherEnds: a list that find -print0 wrote, given as lines, is
// refused before a part of it is taken for a path.
func TestListWithOtherEnds(t *testing.T) {
	for _, err := range pathsOf(strings.NewReader("/a\x00/b\x00"), '\n') {
		if err == nil || !strings.Contains(err.Error(), "--files-from0") {
			t.Error(err)
		}
	}
	for path, err := range pathsOf(strings.NewReader("/a\x00/b\x00"), 0) {
		if err != nil || len(path) < 2 {
			t.Error(path, err)
		}
	}
}
