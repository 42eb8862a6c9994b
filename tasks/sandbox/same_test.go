package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gotong/tasks"
)

var update = flag.Bool("update", false, "rewrite testdata/same.txt")

// sameFile has what the guests of TestSameOnEveryProcessor give, committed, so
// that each processor is compared with all others.
const sameFile = "testdata/same.txt"

// sameRuns are guests that show whatever could differ between machines.
var sameRuns = []struct {
	name string
	args []string
}{
	{"nan", nil},
	{"facts", []string{"some", "arguments"}},
	{"wordcount", []string{"/in/text", "0", "1"}},
	{"outfile", []string{"a/b", "text", "10000"}},
	{"sleep", []string{"1500"}},
	{"exit", []string{"3", "bye"}},
	{"spin", []string{"3"}},
	{"hog", nil},
	{"recurse", nil},
	{"flood", nil},
	{"noop", nil},
	{"trap", nil},
}

// TestSameOnEveryProcessor runs guests in this process, without the layers
// around it, so that it runs under an emulator too. A difference to what is
// committed means another processor computes something else, or that the
// semantics changed: then raise semantics and run the test with -update.
func TestSameOnEveryProcessor(t *testing.T) {
	want := ""
	if raw, err := os.ReadFile(sameFile); err == nil {
		want = string(raw)
	} else if !*update {
		t.Fatal(err)
	}
	got := Engine + "\n"
	for _, run := range sameRuns {
		got += runHere(t, run.name, run.args...) + "\n"
	}
	if *update {
		if err := os.WriteFile(sameFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	wants := strings.Split(want, "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(wants) || line != wants[i] {
			t.Errorf("%s\nis not what is committed", line)
		}
	}
}

// TestSameOnArm64 runs TestSameOnEveryProcessor as built for arm64 under an
// emulator, which lets programs map and run code as the engine does but knows
// nothing of Landlock and seccomp. It builds everything anew, so it has to be asked for.
func TestSameOnArm64(t *testing.T) {
	if os.Getenv("REQUIRE_QEMU") == "" {
		t.Skip("runs with REQUIRE_QEMU=1")
	}
	qemu, err := exec.LookPath("qemu-aarch64")
	if err != nil || runtime.GOOS != "linux" || runtime.GOARCH == "arm64" {
		t.Fatalf("needs Linux on another processor than arm64, and qemu-aarch64 of Debian's qemu-user: %v", err)
	}
	binary := filepath.Join(t.TempDir(), "arm64.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "GOARCH=arm64", "GOOS=linux", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(qemu, binary, "-test.v", "-test.run", "^TestSameOnEveryProcessor$").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestSameOnEveryProcessor") {
		t.Errorf("%v\n%s", err, out)
	}
}

// runHere runs a guest and says in a line how it ended, with hashes of what it
// wrote.
func runHere(t *testing.T, name string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{inputDir, outputDir} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Repeat("so many words, so few of them new\n", 100)
	id := tasks.ContentID{1}
	if err := os.WriteFile(filepath.Join(dir, inputDir, id.String()), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	limits := tasks.DefaultLimits()
	limits.MemoryBytes, limits.StdoutBytes = 64<<20, 1<<20
	store, err := openStore(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	defer store.in.Close()
	defer store.out.Close()
	module, err := os.ReadFile(filepath.Join("../guests/wasm", name+".wasm"))
	if err != nil {
		module = guestModule(t, name)
	}
	g, err := compile(module, limits, store, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer g.runtime.Close(g.ctx)
	input := tasks.Input{Name: "text", Content: id, Size: int64(len(text))}
	r := g.run(taskMessage{Seed: tasks.Spec{Args: args}.Seed(), Args: args, Inputs: []tasks.Input{input}})
	line := fmt.Sprintf("%s: %s %s %d, stdout %s, stderr %s", name, r.State, r.Limit, r.ExitCode, digest(r.Stdout), digest(r.Stderr))
	for _, f := range r.Files {
		line += fmt.Sprintf(", %s %d %s", f.Name, f.Size, digest(f.Data))
	}
	return line
}

// digest shows short texts and hashes long ones.
func digest(text []byte) string {
	if len(text) <= 40 {
		return fmt.Sprintf("%q", text)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
