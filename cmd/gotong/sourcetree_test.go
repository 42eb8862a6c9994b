package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// sourceFiles is how many files of the source tree are formatted; SOURCE_FILES
// in the environment makes them more, all with "all".
const sourceFiles = 60

// TestFormatASourceTree formats files of Go's own source with gofmt, compiled to
// WASI from the source that comes with the compiler, on friends' machines, and
// compares with what the native gofmt makes of them.
func TestFormatASourceTree(t *testing.T) {
	g := newGrid(t)
	ctx := testContext(t)
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no Go compiler here: ", err)
	}
	goroot := strings.TrimSpace(string(root))
	files := goFiles(t, filepath.Join(goroot, "src"), filesAsked(t))
	dir := t.TempDir()
	native, guest := filepath.Join(dir, "gofmt"), filepath.Join(dir, "gofmt.wasm")
	for path, env := range map[string][]string{native: nil, guest: {"GOOS=wasip1", "GOARCH=wasm"}} {
		build := exec.CommandContext(ctx, "go", "build", "-o", path, "cmd/gofmt")
		build.Env = append(os.Environ(), env...)
		if out, err := build.CombinedOutput(); err != nil {
			t.Skipf("gofmt cannot be built here: %v\n%s", err, out)
		}
	}
	you, _ := grow(ctx, t, g, 2)
	list := filepath.Join(dir, "files")
	if err := os.WriteFile(list, []byte(strings.Join(files, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := run(ctx, t, you, "--stage", "--verify", "none", "--memory", "512MiB", guest, "{}", "::::", list)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, l := range lines {
		if l.Type != "task" {
			continue
		}
		if l.Item != files[l.Index] || l.State != "done" {
			t.Fatalf("task %d, %s: %s: %s", l.Index, l.Item, l.State, l.Why)
		}
		want, err := exec.CommandContext(ctx, native, l.Item).Output()
		if err != nil {
			t.Fatalf("gofmt %s: %v", l.Item, err)
		}
		if !bytes.Equal([]byte(l.Stdout), want) {
			t.Errorf("%s: the grid made %d bytes of it, the native program others, %d", l.Item, len(l.Stdout), len(want))
		}
		compared++
	}
	if compared != len(files) {
		t.Errorf("%d of %d files compared", compared, len(files))
	}
}

func filesAsked(t *testing.T) int {
	asked := os.Getenv("SOURCE_FILES")
	if asked == "all" {
		return 1 << 30
	}
	if n, err := strconv.Atoi(asked); err == nil {
		return n
	}
	return sourceFiles
}

// goFiles returns up to n Go files below dir, those spread over the tree first,
// that are valid UTF-8 and no test data.
func goFiles(t *testing.T, dir string, n int) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "testdata" {
			return filepath.SkipDir
		}
		if entry.Type().IsRegular() && strings.HasSuffix(path, ".go") {
			all = append(all, path)
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		t.Skip("no source of Go here: ", err)
	}
	step := max(1, len(all)/n)
	var files []string
	for i := 0; i < len(all) && len(files) < n; i += step {
		if data, err := os.ReadFile(all[i]); err == nil && len(data) < 1<<20 {
			files = append(files, all[i])
		}
	}
	return files
}
