package batch_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotong/tasks/batch"
)

// gnuParallel returns the command that runs GNU parallel, or skips; with
// REQUIRE_PARALLEL it fails instead.
func gnuParallel(t *testing.T) func(stdin string, args ...string) string {
	t.Helper()
	out, err := exec.Command("parallel", "--version").Output()
	if err != nil || !bytes.HasPrefix(out, []byte("GNU parallel")) {
		if os.Getenv("REQUIRE_PARALLEL") != "" {
			t.Fatal("GNU parallel is required: ", err)
		}
		t.Skip("GNU parallel is not installed")
	}
	home := t.TempDir()
	return func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command("parallel", append([]string{"--will-cite", "-k", "-j1"}, args...)...)
		cmd.Env = append(os.Environ(), "SHELL=/bin/sh", "PARALLEL_SHELL=/bin/sh", "HOME="+home, "PARALLEL_HOME="+home)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("parallel %q: %v", args, err)
		}
		return string(out)
	}
}

// seedOfRun is BATCH_SEED, or the same each time, so that a run can be repeated.
func seedOfRun() uint64 {
	if seed, err := strconv.ParseUint(os.Getenv("BATCH_SEED"), 10, 64); err == nil {
		return seed
	}
	return 1
}

// cases is how many random cases are compared; BATCH_CASES makes them more.
func cases(t *testing.T, few int) int {
	if n, err := strconv.Atoi(os.Getenv("BATCH_CASES")); err == nil {
		return n
	}
	if testing.Short() {
		return 3
	}
	return few
}

// wordsOf returns the arguments of each line of commands that call d.
func wordsOf(t *testing.T, script string) [][]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	text := "d() { printf '%s\\0' \"$#\" \"$@\"; }\n" + script
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/sh", "-f", path).Output()
	if err != nil {
		t.Fatalf("%v in\n%s", err, script)
	}
	var list [][]string
	fields := strings.Split(string(out), "\x00")
	for fields = fields[:len(fields)-1]; len(fields) > 0; {
		n, err := strconv.Atoi(fields[0])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fields[1:1+n])
		fields = fields[1+n:]
	}
	return list
}

type randomCase struct {
	options []string
	words   []string
	sources []string
	stdin   string
	plan    batch.Plan
	repeat  bool
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func randomValue(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteString(pick(r, "a", "b", "c.txt", ".", "/", " ", "'", "\"", "$x", "*", ",", ";", "ü", "{}", "{1}", "\\", "-"))
	}
	return b.String()
}

func randomWord(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(3) {
		b.WriteString(pick(r, "x", "y=", "-z", "{}", "{.}", "{/}", "{//}", "{/.}", "{#}", "{1}", "{2}", "{3}", "{-1}",
			"{1.}", "{2/}", "{1//}", "{2/.}", "{-1.}"))
	}
	return b.String()
}

// newCase makes a command line; dir has files for ::::.
func newCase(t *testing.T, r *rand.Rand, dir string) randomCase {
	var c randomCase
	for range r.IntN(4) {
		c.words = append(c.words, randomWord(r))
	}
	if r.IntN(3) == 0 {
		n := 1 + r.IntN(3)
		c.options = append(c.options, "-N", strconv.Itoa(n))
		c.plan.PerTask, c.repeat = n, true
	}
	if r.IntN(3) == 0 {
		c.options = append(c.options, "--colsep", "[,;]")
		c.plan.Columns = regexp.MustCompile("[,;]")
	}
	values := func() []string {
		list := make([]string, 1+r.IntN(4))
		for i := range list {
			list[i] = randomValue(r)
		}
		return list
	}
	for i := range 1 + r.IntN(3) {
		kind := r.IntN(4)
		linked := i > 0 && r.IntN(3) == 0
		switch {
		case kind == 0 && i == 0:
			c.stdin = strings.Join(values(), "\n") + pick(r, "", "\n")
			c.sources = append(c.sources, "::::", "-")
		case kind == 1:
			path := filepath.Join(dir, fmt.Sprint("f", i))
			if err := os.WriteFile(path, []byte(strings.Join(values(), "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c.sources = append(c.sources, map[bool]string{false: "::::", true: "::::+"}[linked], path)
		default:
			c.sources = append(c.sources, map[bool]string{false: ":::", true: ":::+"}[linked])
			c.sources = append(c.sources, values()...)
		}
	}
	return c
}

// plan returns the arguments of all tasks as this package makes them.
func (c randomCase) expand() ([][]string, error) {
	command, sources, err := batch.SplitArgs(append(slices.Clone(c.words), c.sources...))
	if err != nil {
		return nil, err
	}
	template, err := batch.ParseTemplate(command, c.repeat)
	if err != nil {
		return nil, err
	}
	c.plan.Sources = sources
	var list [][]string
	for values, err := range c.plan.Tasks(c.open) {
		if err != nil {
			return nil, err
		}
		args, err := template.Expand(len(list)+1, values)
		if err != nil {
			return nil, err
		}
		list = append(list, args)
	}
	return list, nil
}

func (c randomCase) open(path string) (io.ReadCloser, error) {
	if path == batch.StandardInput {
		return io.NopCloser(strings.NewReader(c.stdin)), nil
	}
	return os.Open(path)
}

func TestPlansAreThoseOfGNUParallel(t *testing.T) {
	parallel := gnuParallel(t)
	seed := seedOfRun()
	r := rand.New(rand.NewPCG(1, seed))
	dir := t.TempDir()
	for range cases(t, 8) {
		c := newCase(t, r, dir)
		args := append(slices.Concat([]string{"--dry-run"}, c.options, []string{"d"}, c.words), c.sources...)
		want := wordsOf(t, parallel(c.stdin, args...))
		got, err := c.expand()
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("seed %d: %q, standard input %q:\n got %q\nwant %q", seed, args, c.stdin, got, want)
		}
	}
}

func TestBlocksAreThoseOfGNUParallel(t *testing.T) {
	parallel := gnuParallel(t)
	seed := seedOfRun()
	r := rand.New(rand.NewPCG(2, seed))
	for range cases(t, 5) {
		var text strings.Builder
		for range r.IntN(30) {
			text.WriteString(pick(r, "a", "bc", "def", "x\n", "\n", ">", ";"))
		}
		s := batch.Splitter{Block: int64(1 + r.IntN(12)), RecordEnd: "\n"}
		args := []string{"--pipe", "--block", fmt.Sprint(s.Block)}
		if r.IntN(3) == 0 {
			s.Records = 1 + r.IntN(3)
			args = append(args, "-N", fmt.Sprint(s.Records))
		}
		switch r.IntN(3) {
		case 0:
			s.RecordEnd = ";"
			args = append(args, "--recend", ";")
		case 1:
			s.RecordStart, s.RecordEnd = ">", ""
			args = append(args, "--recstart", ">")
		}
		if s.Records > 0 {
			// With -N it takes a record that is empty for a part of the next.
			text.Reset()
			for range r.IntN(20) {
				text.WriteString(pick(r, "a\n", "bc;", "d>e"))
			}
		}
		out := parallel(text.String(), append(args, "cat; printf '\\0'")...)
		want := strings.Split(out, "\x00")
		want = want[:len(want)-1]
		var got []string
		for block, err := range s.Blocks(strings.NewReader(text.String())) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(block))
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: %q of %q:\n got %q\nwant %q", seed, args, text.String(), got, want)
		}
	}
}
