package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompareTreesNotesWhatCannotBeRead: a directory that cannot be listed differs,
// like the files beside it, which are compared meanwhile. The race detector judges.
func TestCompareTreesNotesWhatCannotBeRead(t *testing.T) {
	want, got := t.TempDir(), t.TempDir()
	root, err := os.OpenRoot(want)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	// Whoever runs this may read every directory, but not by a name that is too long.
	long := strings.Repeat("d", 250)
	dir := strings.TrimSuffix(strings.Repeat(long+"/", (4096-len(want))/len(long)-1), "/")
	if err := root.MkdirAll(dir+"/"+long+"/"+long+"/"+long, 0o700); err != nil {
		t.Skip(err)
	}
	files := 50
	for i := range files {
		if err := os.WriteFile(filepath.Join(want, dir, "a"+strings.Repeat("a", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	compared, different, err := compareTrees(t.Context(), want, got)
	if err != nil || len(different) < files+1 || len(different) > compared+1 {
		t.Errorf("%d of %d differ: %v", len(different), compared, err)
	}
}
