package benchmarks

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// settings are the sizes of a run, from the environment.
type settings struct {
	MiB   int // BENCH_MIB: of random data
	Files int // BENCH_FILES: in the source-like tree
	Small int // BENCH_SMALL: files of a few bytes
	Tasks int // BENCH_TASKS: no-op tasks of one run
	Items int // BENCH_ITEMS: of the run with very many

	Memory []int // BENCH_MEMORY: MiB of each file that memory is watched with

	Dir    string // BENCH_DIR: where homes and data are made; empty: the temporary directory
	Result string // BENCH_RESULT: results/<date>-<this>.md is written; empty: no file
}

// The sizes of a run that names none.
const (
	defaultMiB   = 256
	defaultFiles = 15_000
	defaultSmall = 20_000
	defaultTasks = 20_000
	defaultItems = 1_000_000
)

// readSettings reads the environment through get.
func readSettings(get func(string) string) (settings, error) {
	s := settings{Dir: get("BENCH_DIR"), Result: get("BENCH_RESULT")}
	if s.Result != filepath.Base(s.Result) && s.Result != "" {
		return s, fmt.Errorf("BENCH_RESULT=%s is not the plain part of a file name", s.Result)
	}
	for _, number := range []struct {
		name     string
		value    *int
		standard int
	}{{"BENCH_MIB", &s.MiB, defaultMiB}, {"BENCH_FILES", &s.Files, defaultFiles}, {"BENCH_SMALL", &s.Small, defaultSmall}, {"BENCH_TASKS", &s.Tasks, defaultTasks}, {"BENCH_ITEMS", &s.Items, defaultItems}} {
		*number.value = number.standard
		if text := get(number.name); text != "" {
			n, err := size(number.name, text)
			if err != nil {
				return s, err
			}
			*number.value = n
		}
	}
	sizes := get("BENCH_MEMORY")
	if sizes == "" {
		s.Memory = []int{s.MiB}
		return s, nil
	}
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := size("BENCH_MEMORY", text)
		if err != nil {
			return s, err
		}
		s.Memory = append(s.Memory, n)
	}
	return s, nil
}

// String gives the settings as they would be set.
func (s settings) String() string {
	memory := strings.ReplaceAll(strings.Trim(fmt.Sprint(s.Memory), "[]"), " ", ",")
	return fmt.Sprintf("BENCH_MIB=%d BENCH_FILES=%d BENCH_SMALL=%d BENCH_TASKS=%d BENCH_MEMORY=%s", s.MiB, s.Files, s.Small, s.Tasks, memory)
}

// size reads a number that counts something.
func size(name, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s=%s is not a number of at least 1", name, text)
	}
	return n, nil
}

// place is where the data of this run lies; run is what was asked for and what
// was measured.
var run struct {
	settings settings
	place    string
	results  board
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(measure(m))
}

// measure runs the tests and benchmarks, prints what was measured, and removes
// what was made.
func measure(m *testing.M) (code int) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		code = 1
	}
	var err error
	if run.settings, err = readSettings(os.Getenv); err != nil {
		fail(err)
		return code
	}
	// Short, for a unix socket's path has at most 108 bytes.
	if run.place, err = os.MkdirTemp(run.settings.Dir, "gb"); err != nil {
		fail(err)
		return code
	}
	defer func() {
		if err := removeTree(run.place); err != nil {
			fail(err)
		}
	}()
	code = m.Run()
	if !run.results.empty() {
		fmt.Print("\n", run.results.markdown())
	}
	return code
}

// publish writes the file of the results so far, if one is asked for.
func publish() error {
	if run.settings.Result == "" {
		return nil
	}
	now := time.Now().UTC()
	path := filepath.Join("results", now.Format(time.DateOnly)+"-"+run.settings.Result+".md")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(heading(now)+run.results.markdown()), 0o644)
}

// program builds gotong once and returns its path.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(run.place, "gotong")
	return path, command(context.Background(), "go", "build", "-o", path, "gotong/cmd/gotong")
})

// command runs a program and puts what it said into its error.
func command(ctx context.Context, name string, args ...string) error {
	return ran(exec.CommandContext(ctx, name, args...))
}

// ran runs cmd and puts what it said into its error.
func ran(cmd *exec.Cmd) error {
	cmd.Stdout = io.Discard
	said := &tail{}
	cmd.Stderr = said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said.text)
	}
	return nil
}

// tail keeps the first bytes that are written to it.
type tail struct{ text []byte }

const tailBytes = 4096

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p[:min(len(p), tailBytes-len(t.text))]...)
	return len(p), nil
}

// removeTree removes dir with directories that a restore made read-only.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	walk := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(walk, os.RemoveAll(dir))
}
